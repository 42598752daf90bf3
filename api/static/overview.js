// Everything at a glance: the numbers, the agents, what waits, what runs, what failed last.

import { request } from "./api.js";
import { h } from "./dom.js";
import { count } from "./format.js";
import { agentLink, heading, latencyCell, link, section, share, sign, since, table, trafficCell } from "./parts.js";
import { brief } from "./tasks.js";

const PRIORITIES = [5, 4, 3, 2, 1];
const SHOWN = 6;

export const overview = {
  title: () => "Overview",

  async load() {
    const states = ["running", "queued", "failed"];
    const lists = await Promise.all(states.map((status) => request(`/tasks?status=${status}&limit=${SHOWN}`)));
    const [running, queued, failed] = lists.map((list) => list.tasks);
    const open = [...running, ...queued].sort((one, other) => Date.parse(other.created_at) - Date.parse(one.created_at));
    return { open: open.slice(0, SHOWN), failed };
  },

  render({ open, failed }, { shared }) {
    const { who, health, metrics, agents, traffic } = shared;
    return [
      heading("Overview", sign(health.status)),
      numbers(health, metrics),
      !metrics && hidden(who),
      section("Agents", { id: "agents" }, agentTable(agents.agents, traffic, metrics)),
      h(
        "div",
        { class: "columns", key: "columns" },
        section("In progress", { id: "open", aside: link(["tasks"], "All running", { status: "running" }) }, brief("Tasks in progress, the newest first", open, "Nothing is in progress.")),
        section("Latest failures", { id: "failures", aside: link(["tasks"], "All failed", { status: "failed" }) }, brief("Failed tasks, the newest first", failed, "No task has failed.")),
      ),
      metrics && section("Queues by priority", { id: "queues" }, queues(agents.agents, metrics.queue_sizes)),
    ];
  },
};

/** What a key for one tenant is not shown. */
function hidden({ tenant }) {
  const text = `The tasks, dead letters and batches here are those of ${tenant}. Numbers of all tenants together (tasks, traffic, queues by priority) take a key for all tenants.`;
  return h("p", { class: "empty", key: "hidden" }, text);
}

function numbers(health, metrics) {
  const figures = [
    ["Agents healthy", `${health.agents_healthy} of ${health.agents_total}`, ["agents"], health.agents_healthy < health.agents_total && "warn"],
    ["Waiting calls", count(health.queue_size), null],
  ];
  if (metrics) figures.splice(1, 0, ["Active tasks", count(metrics.active_tasks), ["tasks"]]);
  if (metrics) figures.push(...ended(metrics));
  return h(
    "dl",
    { class: "figures", key: "figures" },
    figures.map(([name, value, path, kind, query]) =>
      h("div", { class: kind }, h("dt", null, name), h("dd", null, path && path[0] !== "agents" ? link(path, value, query) : value)),
    ),
  );
}

function ended(metrics) {
  return [
    ["Completed", count(metrics.completed_tasks), ["tasks"], null, { status: "completed" }],
    ["Failed", count(metrics.failed_tasks), ["tasks"], null, { status: "failed" }],
    ["Dead letters", count(metrics.dead_letters), ["dead-letters"], metrics.dead_letters > 0 && "warn"],
  ];
}

/** Since when something is so, if anybody knows. */
export const sinceWhen = (stamp) => stamp && h("span", { class: "faint" }, " ", since(stamp));

/** The instance whose breaker tells the agent's state. */
const teller = (agent) => agent.instances.find((each) => each.breaker.state === agent.breaker) ?? agent.instances[0];

export const waiting = (agent) => Object.values(agent.queue.depth).reduce((sum, each) => sum + each, 0);

function agentHealth(agent) {
  if (agent.instances.length && agent.instances.every((each) => each.draining)) return sign("draining");
  const states = agent.instances.map((each) => each.health.state);
  if (agent.healthy) return sign("healthy");
  return sign(states.every((state) => state === "unknown") ? "unknown" : "unhealthy");
}

export const limits = ({ rate, max_connections: connections }) =>
  `${rate == null ? "" : `${count(rate)}/min, `}${count(connections)} at once`;

function instances(agent) {
  const well = agent.instances.filter((each) => each.health.state === "healthy" && !each.draining).length;
  return `${well} of ${agent.instances.length}`;
}

function agentTable(agents, traffic, seesTraffic) {
  const of = (agent) => traffic?.agents[agent.name];
  const busy = [
    { head: "Traffic", cell: (agent) => trafficCell(of(agent), traffic?.bucket_seconds) },
    { head: "Duration", cell: (agent) => latencyCell(of(agent)) },
  ];
  return table(
    `Agents: health, breaker, limits${seesTraffic ? ", and the traffic of the last ten minutes" : ""}`,
    [
      { head: "Agent", cell: (agent) => agentLink(agent.name) },
      { head: "Health", cell: agentHealth },
      { head: "Breaker", cell: (agent) => [sign(agent.breaker), agent.breaker !== "closed" && sinceWhen(teller(agent)?.breaker.since)] },
      { head: "Instances up", cell: instances, kind: "number wide" },
      { head: "Waiting", cell: (agent) => (agent.queue.has_worker === false ? sign("degraded", "no worker") : count(waiting(agent))), kind: "number" },
      ...(seesTraffic ? busy : []),
      { head: "Limits", cell: (agent) => h("span", { class: "faint" }, limits(agent.limits)), kind: "wide" },
    ],
    agents,
    { key: (agent) => agent.name, empty: "The configuration names no agents." },
  );
}

/** What waits, by priority, and for whom. */
function queues(agents, sizes) {
  const busy = agents.filter((agent) => waiting(agent) > 0);
  const most = Math.max(1, ...PRIORITIES.map((level) => sizes[`priority_${level}`]));
  const depth = (agent, level) => agent.queue.depth[`priority_${level}`] ?? 0;
  return table(
    "Calls that wait, by priority; 5 is the most urgent",
    [
      { head: "Priority", cell: (level) => `${level}${level === 5 ? " most urgent" : level === 1 ? " least urgent" : ""}` },
      { head: "Waiting", cell: (level) => count(sizes[`priority_${level}`]), kind: "number" },
      { head: "Share", cell: (level) => share(sizes[`priority_${level}`], most), kind: "wide" },
      {
        head: "For",
        kind: "rest",
        cell: (level) => {
          const found = busy.filter((agent) => depth(agent, level));
          if (!found.length) return h("span", { class: "faint" }, "nobody");
          return found.map((agent, at) => [at > 0 && ", ", agentLink(agent.name), ` ${count(depth(agent, level))}`]);
        },
      },
    ],
    PRIORITIES,
    { key: (level) => level },
  );
}
