// The list of tasks, one page at a time.

import { address, request } from "./api.js";
import { h } from "./dom.js";
import { between, duration, now, waitsFor } from "./format.js";
import { agentLink, filters, heading, pager, section, sign, since, table, taskLink } from "./parts.js";

export const PAGE = 50;
const STATES = ["queued", "running", "completed", "failed", "cancelled"];
const FINAL = new Set(["completed", "failed", "cancelled"]);

export const isFinal = (task) => FINAL.has(task.status);

/** From start to end, or until now. */
export function took(task) {
  const seconds = isFinal(task) ? between(task.created_at, task.updated_at) : (now() - Date.parse(task.created_at)) / 1000;
  return duration(Math.max(0, seconds));
}

export const option = (name) => [name, name];
export const PRIORITIES = [["", "any"], ...["5", "4", "3", "2", "1"].map(option)];
export const agentOptions = (shared) => [["", "any"], ...shared.agents.agents.map(({ name }) => option(name))];

export const tasks = {
  title: () => "Tasks",

  load: (_, query) => {
    const { page, ...chosen } = query;
    return request(address("/tasks", { ...chosen, limit: PAGE }));
  },

  render(found, { query, shared }) {
    const { cursor, page, ...chosen } = query;
    const fields = [
      { name: "status", label: "Status", options: [["", "any"], ...STATES.map(option)] },
      { name: "agent", label: "Agent", options: agentOptions(shared) },
      { name: "pattern", label: "Pattern", hint: "upload_pdf" },
      { name: "priority", label: "Priority", options: PRIORITIES },
      { name: "tenant", label: "Tenant" },
      { name: "batch", label: "Batch id" },
    ];
    return [
      heading("Tasks", findForm()),
      section("Newest first", { id: "list" }, filters(["tasks"], fields, chosen), list(found), pager(["tasks"], query, found.next_cursor, "tasks")),
    ];
  },
};

function findForm() {
  return h(
    "form",
    { class: "find", role: "search", "aria-label": "Open a task", "data-find": "" },
    h("label", { for: "find", class: "unseen" }, "Task id"),
    h("input", { id: "find", name: "id", type: "search", placeholder: "Task id", autocomplete: "off", spellcheck: "false", required: true, maxlength: 500 }),
    h("button", { type: "submit" }, "Open"),
  );
}

const COLUMNS = {
  task: { head: "Task", cell: (task) => taskLink(task.task_id) },
  status: { head: "Status", cell: (task) => [sign(task.status), h("span", { class: "faint" }, " ", note(task))] },
  agent: { head: "Agent", cell: (task) => agentLink(task.agent) },
  pattern: { head: "Pattern", cell: (task) => task.pattern ?? "—", kind: "wide" },
  priority: { head: "Priority", cell: (task) => task.priority ?? "—", kind: "number wide" },
  started: { head: "Started", cell: (task) => since(task.created_at) },
  took: { head: "Took", cell: took, kind: "number" },
};

function note(task) {
  if (task.blocked_by) return waitsFor(task);
  return task.attempts > 1 && !isFinal(task) ? `attempt\u00a0${task.attempts}` : "";
}

function list(found) {
  const { task, status, agent, pattern, priority, started, took: long } = COLUMNS;
  return table("Tasks, the newest first", [task, status, agent, pattern, priority, started, long], found.tasks, {
    key: (each) => each.task_id,
    // The engine selects open tasks; which of them run and which wait is known only afterwards.
    empty: found.next_cursor ? "None on this page; there are more." : "No task matches. Items of batches are listed with their batch.",
  });
}

/** A short list for the overview. */
export function brief(caption, found, empty) {
  const { task, agent, started, took: long } = COLUMNS;
  const state = { ...COLUMNS.status, head: "State" };
  return table(caption, [task, state, agent, { ...started, kind: "wide" }, long], found, { key: (each) => each.task_id, empty });
}
