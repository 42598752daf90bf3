// Tasks that failed for good: run them again, or give them up.

import { address, request } from "./api.js";
import { h } from "./dom.js";
import { short } from "./format.js";
import { agentLink, button, filters, heading, pager, section, since, table, taskLink } from "./parts.js";
import { agentOptions, PAGE, PRIORITIES } from "./tasks.js";

export const deadLetters = {
  title: () => "Dead letters",

  load: (_, query) => {
    const { page, ...chosen } = query;
    return request(address("/dead-letters", { ...chosen, limit: PAGE }));
  },

  render(found, { query, shared }) {
    const { cursor, page, ...chosen } = query;
    const fields = [
      { name: "agent", label: "Agent", options: agentOptions(shared) },
      { name: "pattern", label: "Pattern" },
      { name: "priority", label: "Priority", options: PRIORITIES },
      { name: "error_type", label: "Error type", hint: "AgentFailed" },
      { name: "tenant", label: "Tenant" },
    ];
    const some = found.dead_letters.length > 0;
    const meant = JSON.stringify(chosen);
    return [
      heading("Dead letters"),
      some && h(
        "div",
        { class: "actions", key: "actions" },
        button("redrive-many", "Redrive all that match…", { filter: meant }),
        button("discard-many", "Discard all that match…", { filter: meant }, { danger: true }),
      ),
      section("Newest first", { id: "list" }, filters(["dead-letters"], fields, chosen), list(found.dead_letters), pager(["dead-letters"], query, found.next_cursor, "dead letters")),
    ];
  },
};

function list(found) {
  const name = (letter) => short(letter.task_id);
  return table(
    "Dead letters, the newest first",
    [
      { head: "Task", cell: (letter) => taskLink(letter.task_id) },
      { head: "Agent", cell: (letter) => agentLink(letter.agent) },
      { head: "Pattern", cell: (letter) => letter.pattern ?? "—", kind: "wide" },
      { head: "Error", cell: (letter) => [h("div", null, letter.error_type ?? "—"), h("div", { class: "faint clip", title: letter.error }, letter.error)] },
      { head: "Attempts", cell: (letter) => letter.attempts, kind: "number wide" },
      { head: "Runs", cell: (letter) => letter.runs, kind: "number wide" },
      { head: "Failed", cell: (letter) => since(letter.failed_at) },
      {
        head: "Orders",
        cell: (letter) =>
          h(
            "span",
            { class: "actions" },
            button("redrive", "Redrive…", { task: letter.task_id }, { title: `Redrive ${name(letter)}` }),
            button("discard", "Discard…", { task: letter.task_id }, { title: `Discard ${name(letter)}`, danger: true }),
          ),
      },
    ],
    found,
    { key: (letter) => letter.task_id, empty: "There are none: nothing has failed for good." },
  );
}
