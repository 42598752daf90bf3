// Batches and how far they have come; one batch and its items.

import { address, request } from "./api.js";
import { h } from "./dom.js";
import { count, short } from "./format.js";
import { agentLink, button, engineLink, facts, filters, heading, link, pager, section, share, sign, since, table, taskLink } from "./parts.js";
import { isFinal, option, PAGE, took } from "./tasks.js";

const ended = (batch) => batch.total - batch.pending;

function progress(batch) {
  const name = `${count(ended(batch))} of ${count(batch.total)} ended`;
  return h("span", { class: "sparked" }, share(ended(batch), batch.total, name), h("span", { class: "figure" }, `${batch.total ? Math.floor((100 * ended(batch)) / batch.total) : 100} %`));
}

export const batches = {
  title: () => "Batches",

  load: (_, { cursor }) => request(address("/batches", { cursor, limit: PAGE })),

  render: (found, { query }) => [
    heading("Batches"),
    section("Newest first", { id: "list" }, list(found.batches), pager(["batches"], query, found.next_cursor, "batches")),
  ],
};

function list(found) {
  return table(
    "Batches, the newest first",
    [
      { head: "Batch", cell: (batch) => link(["batches", batch.batch_id], h("code", { title: batch.batch_id }, short(batch.batch_id))) },
      { head: "Status", cell: (batch) => sign(batch.status) },
      { head: "Progress", cell: progress },
      { head: "Items", cell: (batch) => count(batch.total), kind: "number" },
      { head: "Failed", cell: (batch) => count(batch.failed), kind: "number" },
      { head: "Cancelled", cell: (batch) => count(batch.cancelled), kind: "number wide" },
      { head: "Started", cell: (batch) => since(batch.created_at), kind: "wide" },
    ],
    found,
    { key: (batch) => batch.batch_id, empty: "No batch was handed in yet." },
  );
}

export const batch = {
  title: ({ id }) => `Batch ${short(id)}`,

  async load({ id }, { status, cursor }) {
    const path = `/batches/${encodeURIComponent(id)}`;
    const [found, items] = await Promise.all([
      request(path),
      request(address(`${path}/results`, { status, cursor, limit: PAGE }), { accepted: lines }),
    ]);
    return { found, ...items };
  },

  render({ found, items, next }, { params, query, shared }) {
    const about = { batch: found.batch_id };
    const path = ["batches", params.id];
    const states = ["queued", "running", "completed", "failed", "cancelled"].map(option);
    return [
      heading(["Batch ", h("code", null, short(found.batch_id))], sign(found.status)),
      h(
        "div",
        { class: "actions", key: "actions" },
        found.failed > 0 && button("redrive-batch", "Redrive failed items…", about),
        !isFinal(found) && button("cancel-batch", "Cancel batch…", about, { danger: true }),
        engineLink(shared.index, found.batch_id),
      ),
      section("How far it is", { id: "progress" }, facts(
        ["Batch id", h("code", { class: "whole" }, found.batch_id)],
        ["Ended", progress(found)],
        ["Items", count(found.total)],
        ["Completed", count(found.completed)],
        ["Failed", count(found.failed)],
        ["Cancelled", count(found.cancelled)],
        ["Pending", count(found.pending)],
        ["Started", since(found.created_at)],
        [isFinal(found) ? "Took" : "For", took(found)],
        ["Error", found.error],
      )),
      section("Items in their order", { id: "items" },
        filters(path, [{ name: "status", label: "Status", options: [["", "any"], ...states] }], query.status ? { status: query.status } : {}),
        itemTable(items), pager(path, query, next, "items")),
    ];
  },
};

/** One JSON object a line; the next page's cursor is in a header. */
async function lines(response) {
  const text = await response.text();
  const items = text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  return { items, next: response.headers.get("X-Next-Cursor") };
}

function itemTable(items) {
  return table(
    "Items of the batch",
    [
      { head: "Task", cell: (item) => taskLink(item.task_id) },
      { head: "Status", cell: (item) => sign(item.status) },
      { head: "Agent", cell: (item) => agentLink(item.agent) },
      { head: "Pattern", cell: (item) => item.pattern ?? "—", kind: "wide" },
      { head: "Attempts", cell: (item) => item.attempts ?? "—", kind: "number" },
      { head: "Error", cell: (item) => h("span", { class: "clip" }, item.error ?? "—"), kind: "wide" },
    ],
    items,
    { key: (item) => item.task_id, empty: "No item matches." },
  );
}
