// One task: what became of it, attempt by attempt.

import { request } from "./api.js";
import { h, s } from "./dom.js";
import { clock, duration, now, plural, pretty, short, waitsFor } from "./format.js";
import { agentLink, button, engineLink, facts, heading, link, section, sign, since } from "./parts.js";
import { isFinal, took } from "./tasks.js";

export const task = {
  title: ({ id }) => `Task ${short(id)}`,

  async load({ id }) {
    const path = encodeURIComponent(id);
    const status = await request(`/status/${path}`);
    // It may be redriven or discarded between the two.
    const letter = status.dead_letter ? await request(`/dead-letters/${path}`, { expected: [404] }) : null;
    return { status, letter: letter?.request ? letter : null };
  },

  render({ status, letter }, { shared }) {
    return [
      heading(["Task ", h("code", null, short(status.task_id))], sign(status.status), letter && sign("dead_letter")),
      h("div", { class: "actions", key: "actions" }, orders(status, letter), engineLinks(status, letter, shared.index)),
      section("What it is", { id: "facts" }, about(status)),
      section("Attempts", { id: "attempts" }, timeline(status), earlier(status.earlier_runs)),
      outcome(status),
      letter && section("Request, as it was submitted", { id: "request" }, text(letter.request)),
    ];
  },
};

function orders(status, letter) {
  const about = { task: status.task_id };
  if (letter) {
    return [button("redrive", "Redrive…", about), button("discard", "Discard…", about, { danger: true })];
  }
  if (isFinal(status)) return [];
  return [button("priority", "Change priority…", { ...about, priority: status.priority ?? 3 }), button("cancel", "Cancel task…", about, { danger: true })];
}

/** An item of a batch has a workflow of its own only after it was redriven. */
function engineLinks(status, letter, index) {
  const own = !status.batch_id || status.earlier_runs?.length;
  return [
    engineLink(index, own ? status.task_id : status.batch_id, own ? "Open in Temporal" : "Open its batch in Temporal"),
    letter && engineLink(index, `dead-letter/${status.task_id}`, "Its dead letter in Temporal"),
  ];
}

function about(status) {
  return facts(
    ["Task id", h("code", { class: "whole" }, status.task_id)],
    ["Agent", agentLink(status.agent)],
    ["Chosen by", status.chosen_by],
    ["Pattern", status.pattern],
    ["Priority", status.priority],
    ["Tenant", status.tenant],
    ["Batch", status.batch_id && link(["batches", status.batch_id], h("code", null, short(status.batch_id)))],
    ["Trace", status.trace_id && h("code", { class: "whole" }, status.trace_id)],
    ["Submitted", [clock(status.created_at), " (", since(status.created_at), ")"]],
    [isFinal(status) ? "Took" : "For", took(status)],
    ["Last attempt took", status.execution_time != null && duration(status.execution_time)],
    ["Now", waitsFor(status)],
    ["Progress", status.progress != null && pretty(status.progress)],
    ["Last error", !isFinal(status) && status.last_error],
  );
}

function outcome(status) {
  if (status.error) {
    return section("Error", { id: "outcome" }, h("p", null, h("strong", null, status.error_type ?? "Failed")), text(status.error));
  }
  return "result" in status && section("Result", { id: "outcome" }, text(status.result));
}

/** Whatever an agent or a caller sent, as text. */
const text = (value) => h("pre", { tabindex: "0", class: "text" }, pretty(value));

/** The attempts on one scale of time, from the submission to the end. */
function timeline(status) {
  const made = status.attempt_history ?? [];
  // The engine's record keeps the latest.
  const hidden = (made[0]?.attempt ?? 1) - 1;
  const rows = made.map((each) => ({ ...each, from: Date.parse(each.at ?? status.created_at), last: each.seconds * 1000 }));
  if (!isFinal(status)) rows.push(current(status, made.at(-1)));
  if (!rows.length) return h("p", { class: "empty" }, "No attempt was made.");
  const begin = Math.min(Date.parse(status.created_at), ...rows.map((row) => row.from));
  const end = Math.max(begin + 1, ...rows.map((row) => row.from + row.last));
  return [
    hidden > 0 && h("p", { class: "faint" }, `${plural(hidden, "earlier attempt")} not shown`),
    h("ol", { class: "timeline", "aria-label": `Attempts, within ${duration((end - begin) / 1000)}` }, rows.map((row) => entry(row, begin, end))),
    h("p", { class: "scale faint", "aria-hidden": "true" }, h("span", null, clock(begin)), h("span", null, `${duration((end - begin) / 1000)} in all`), h("span", null, clock(end))),
  ];
}

/** What is going on, or is waited for. */
function current(status, last) {
  const next = status.next_attempt_at && Date.parse(status.next_attempt_at);
  const runs = status.status === "running" && (status.blocked_by ?? "answer") === "answer";
  const from = runs ? Date.parse(status.updated_at) : next && next > now() ? next : now();
  const outcome = runs ? waitsFor(status) || "running" : waitsFor(status) || "waits for its turn";
  const attempt = Math.max((last?.attempt ?? 0) + 1, status.attempts ?? 1);
  return { attempt, agent: status.agent, open: runs ? "running" : "queued", outcome, from, last: runs ? Math.max(0, now() - from) : 0 };
}

function entry(row, begin, end) {
  const at = (100 * (row.from - begin)) / (end - begin);
  const wide = Math.max(0.8, (100 * row.last) / (end - begin));
  const kind = row.open ?? (row.outcome === "success" ? "good" : "bad");
  return h(
    "li",
    { key: `${row.agent} ${row.attempt} ${row.open ?? ""}` },
    h("span", { class: "which" }, `Attempt ${row.attempt}`),
    s(
      "svg",
      { class: "lane", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      s("rect", { class: "track", width: 100, height: 10 }),
      s("rect", { class: `bar ${kind}`, x: Math.min(at, 100 - wide).toFixed(2), width: wide.toFixed(2), height: 10 }),
    ),
    h("span", { class: "what" }, sign(row.open ?? (row.outcome === "success" ? "success" : "failed"), row.outcome), details(row)),
    row.error && h("span", { class: "why" }, row.error),
  );
}

function details(row) {
  if (row.open) return null;
  const parts = [row.status && `HTTP ${row.status}`, `after ${duration(row.seconds)}`, row.at && `at ${clock(row.at)}`];
  return h("span", { class: "faint" }, " ", parts.filter(Boolean).join(", "), row.instance && [" on ", h("code", null, row.instance)]);
}

function earlier(runs) {
  return runs?.length > 0 && h(
    "details",
    { key: "earlier" },
    h("summary", null, `${plural(runs.length, "earlier run")}, before it was redriven`),
    h("ul", { class: "plain" }, runs.map((run) => h("li", null, sign("failed", run.error_type), ` ${clock(run.ended_at)}, ${plural(run.attempts, "attempt")}: ${run.error}`))),
  );
}
