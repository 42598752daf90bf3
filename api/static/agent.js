// One agent: its instances, breakers, limits, traffic and what happened to it; and orders about it.

import { request } from "./api.js";
import { h } from "./dom.js";
import { clock, count } from "./format.js";
import { sinceWhen, waiting } from "./overview.js";
import { button, facts, heading, latencyCell, link, section, sign, since, table, trafficCell } from "./parts.js";

export const agent = {
  title: ({ id }) => id,

  load: ({ id }) => request(`/agents/${encodeURIComponent(id)}`),

  render(found, { shared }) {
    const traffic = shared.traffic?.agents[found.name];
    const seen = (cell) => (shared.metrics ? cell : h("span", { class: "faint" }, "takes a key for all tenants"));
    return [
      heading(found.name, sign(found.healthy ? "healthy" : "unhealthy"), sign(found.breaker, `breaker ${words(found.breaker)}`)),
      h("div", { class: "actions", key: "actions" }, orders(found, {}, ""), button("limit", "Set limits…", { agent: found.name })),
      section("Instances", { id: "instances" }, instances(found), removed(found)),
      h(
        "div",
        { class: "columns", key: "columns" },
        section(
          "Traffic",
          { id: "traffic", aside: link(["tasks"], "Its tasks", { agent: found.name }) },
          facts(
            ["Ended, last ten minutes", seen(trafficCell(traffic, shared.traffic?.bucket_seconds))],
            ["From start to end", seen(latencyCell(traffic))],
            ["Waiting", queue(found)],
          ),
        ),
        section("Limits", { id: "limits" }, limits(found.limits)),
      ),
      section("What happened", { id: "events" }, events(found.events)),
    ];
  },
};

const words = (state) => ({ half_open: "half-open", forced_open: "held open", disabled: "taken out" })[state] ?? state;

/** What may be ordered now; without an instance it is about all of them. */
function orders(found, about, name) {
  const some = found.instances.filter((each) => !about.instance || each.url === about.instance);
  const order = (action, label, options) =>
    button(action, label, { agent: found.name, ...about }, { ...options, title: name && `${label.replace("…", "")} ${name}` });
  return [
    some.some((each) => !each.draining) && order("drain", "Drain…"),
    some.some((each) => each.draining) && order("resume", "Resume…"),
    some.some((each) => each.breaker.state !== "forced_open") && order("trip", "Hold breaker open…", { danger: true }),
    some.some((each) => each.breaker.state !== "closed") && order("reset", "Reset breaker…"),
  ];
}

function instances(found) {
  return table(
    `Instances of ${found.name}`,
    [
      { head: "Instance", cell: (each) => h("code", null, each.url) },
      {
        head: "Health",
        cell: ({ health, draining }) => [
          h("div", null, sign(health.state), sinceWhen(health.since)),
          draining && h("div", null, sign("draining")),
          health.reason && h("div", { class: "faint" }, health.reason),
        ],
      },
      {
        head: "Breaker",
        cell: ({ breaker }) => [
          h("div", null, sign(breaker.state), sinceWhen(breaker.since)),
          breaker.until && h("div", { class: "faint" }, "tried again ", since(breaker.until)),
          breaker.reason && h("div", { class: "faint" }, breaker.reason),
        ],
      },
      { head: "Weight", cell: (each) => `${each.weight}${each.added ? ", added at run time" : ""}`, kind: "number wide" },
      // Those of the only one are the agent's.
      ...(found.instances.length > 1 ? [{ head: "Orders", cell: (each) => h("span", { class: "actions" }, orders(found, { instance: each.url }, each.url)) }] : []),
    ],
    found.instances,
    { key: (each) => each.url, empty: "It has no instances." },
  );
}

const removed = (found) => found.removed.length > 0 && h("p", { class: "faint" }, "Taken away by an operator: ", found.removed.join(", "));

function queue(found) {
  if (found.queue.has_worker === false) return sign("degraded", "no worker takes its calls");
  const levels = Object.entries(found.queue.depth).filter(([, depth]) => depth > 0);
  const parts = levels.map(([level, depth]) => `${count(depth)} of priority ${level.replace("priority_", "")}`);
  return parts.length ? `${count(waiting(found))}: ${parts.join(", ")}` : "0";
}

function limits(found) {
  const set = (name) => found.set_at_run_time.includes(name) && h("span", { class: "faint" }, " set at run time");
  return facts(
    ["Calls a minute", found.rate == null ? "no limit" : [count(found.rate), set("rate")]],
    ["At once after a pause", found.burst != null && [count(found.burst), set("burst")]],
    ["Over the limit", found.mode && [found.mode === "reject" ? "refused" : "called later", set("mode")]],
    ["Calls at once, by worker", [count(found.max_connections), set("max_connections")]],
  );
}

function events(found) {
  return table(
    "Latest events, the newest first",
    [
      { head: "When", cell: (each) => h("span", { title: each.at }, clock(each.at)) },
      { head: "What", cell: (each) => each.what.replaceAll("_", " ") },
      { head: "Instance", cell: (each) => (each.instance ? h("code", null, each.instance) : "—"), kind: "wide" },
      { head: "Why", cell: (each) => each.reason || "—" },
      { head: "By", cell: (each) => each.by || "—", kind: "wide" },
    ],
    found,
    { key: (each) => `${each.at} ${each.what} ${each.instance}`, empty: "Nothing yet." },
  );
}
