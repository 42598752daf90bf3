// One task in a dialog, with the timeline of its attempts.

import { request } from "./api.js";
import { byId, clock, duration, el, state } from "./dom.js";
import { cancelTask, changePriority, redrive } from "./orders.js";

export const STATES = { queued: "", running: "busy", completed: "good", failed: "bad", cancelled: "warn" };
const FINAL = new Set(["completed", "failed", "cancelled"]);

let shown = null;
let last = "";

export async function openTask(id) {
  shown = id;
  last = "";
  byId("task-title").textContent = id;
  byId("task-body").replaceChildren("…");
  if (!byId("task").open) byId("task").showModal();
  await refreshTask();
}

export async function refreshTask() {
  if (!byId("task").open) return;
  const id = shown;
  let body;
  try {
    const found = await request(`/status/${encodeURIComponent(id)}`);
    const text = JSON.stringify(found);
    if (text === last) return;
    last = text;
    body = [facts(found), timeline(found), outcome(found), orders(found)];
  } catch (error) {
    last = "";
    body = [el("p", { class: "state bad" }, error.message)];
  }
  if (id !== shown) return;
  const focused = byId("task-body").contains(document.activeElement) ? document.activeElement.textContent : null;
  byId("task-body").replaceChildren(...body.filter(Boolean));
  if (focused) [...byId("task-body").querySelectorAll("button, a")].find((each) => each.textContent === focused)?.focus();
}

function facts(task) {
  const blocked = task.blocked_by && `${task.blocked_by}${task.until ? ` until ${clock(task.until)}` : ""}`;
  const rows = {
    State: state(task.status, STATES[task.status] ?? ""),
    Agent: task.agent, Pattern: task.pattern, Priority: task.priority, Tenant: task.tenant,
    "Waits for": blocked, "Chosen by": task.chosen_by, Batch: task.batch_id,
    Created: clock(task.created_at), Updated: clock(task.updated_at),
    "Last attempt took": task.execution_time === undefined ? undefined : duration(task.execution_time),
    Trace: task.trace_id,
  };
  const given = Object.entries(rows).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return el("dl", { class: "facts" }, ...given.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value instanceof Node ? value : String(value))]), ...webUi(task));
}

function webUi(task) {
  const link = engineLink(task.batch_id ?? task.task_id);
  return link ? [el("dt", {}, "Engine"), el("dd", {}, el("a", { href: link, target: "_blank", rel: "noopener" }, "History in the Temporal Web UI"))] : [];
}

export const page = { temporal_ui: null, namespace: "default" };

export function engineLink(id) {
  return page.temporal_ui && `${page.temporal_ui}/namespaces/${encodeURIComponent(page.namespace)}/workflows/${encodeURIComponent(id)}`;
}

function timeline(task) {
  const runs = [...(task.earlier_runs ?? []).map((run) => el("li", { class: "bad" }, `Earlier run: ${run.error ?? "failed"}`))];
  const attempts = (task.attempt_history ?? []).map((each) => el(
    "li", { class: each.outcome === "success" ? "good" : "bad" },
    el("strong", {}, `Attempt ${each.attempt}: ${each.outcome}`), each.status ? ` (${each.status})` : "",
    ` in ${duration(each.seconds ?? 0)}`, el("br"), el("small", {}, [each.agent, each.instance, clock(each.at)].filter(Boolean).join(" · ")),
  ));
  const now = FINAL.has(task.status)
    ? el("li", { class: STATES[task.status] }, `${task.status} ${clock(task.updated_at)}`)
    : el("li", { class: "busy" }, task.next_attempt_at ? `Next attempt ${clock(task.next_attempt_at)}` : task.status);
  const begun = el("li", {}, `Accepted ${clock(task.created_at)}`);
  return el("div", {}, el("h3", {}, "Timeline"), el("ol", { class: "timeline" }, ...runs, begun, ...attempts, now));
}

function outcome(task) {
  const error = task.error ?? task.last_error;
  return el(
    "div", {},
    error ? el("div", {}, el("h3", {}, task.error ? "Error" : "Last error"), el("pre", { tabindex: "0" }, error)) : null,
    task.result === undefined ? null : el("div", {}, el("h3", {}, "Result"), el("pre", { tabindex: "0" }, JSON.stringify(task.result, null, 2).slice(0, 20000))),
  );
}

function orders(task) {
  const { task_id: id } = task;
  const open = !FINAL.has(task.status);
  return el(
    "div", { class: "orders" },
    open ? el("button", { type: "button", onclick: () => cancelTask(id) }, "Cancel task") : null,
    open ? el("button", { type: "button", onclick: () => changePriority(id, task.priority) }, "Priority") : null,
    task.dead_letter ? el("button", { type: "button", onclick: () => redrive(id) }, "Redrive") : null,
  );
}

byId("task-close").addEventListener("click", () => byId("task").close());
