// What operators order, each confirmed in a dialog.

import { order } from "./api.js";
import { byId, el } from "./dom.js";

// Asks in the dialog; resolves to the fields' values, or null when the answer was no.
function confirmed({ title, text, yes, fields = [] }) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-yes").textContent = yes;
  const inputs = fields.map(({ name, label, ...attributes }) => [name, el("input", { name, ...attributes }), label]);
  byId("confirm-fields").replaceChildren(...inputs.map(([, input, label]) => el("label", {}, label, input)));
  dialog.showModal();
  (inputs[0]?.[1] ?? byId("confirm-no")).focus();
  return new Promise((resolve) => {
    const over = new AbortController();
    const end = (answer) => {
      over.abort();
      dialog.close();
      resolve(answer);
    };
    const values = () => Object.fromEntries(inputs.map(([name, input]) => [name, input.value.trim()]));
    const { signal } = over;
    byId("confirm-yes").addEventListener("click", () => end(values()), { signal });
    byId("confirm-no").addEventListener("click", () => end(null), { signal });
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); end(null); }, { signal });
    byId("confirm-fields").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      // Else the same key would press the button that gets the focus back.
      event.preventDefault();
      end(values());
    }, { signal });
  });
}

export function say(text) {
  const said = byId("said");
  said.textContent = text;
  said.hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { said.hidden = true; }, 8000);
}

async function carryOut(question, path, done, body = (values) => values) {
  const values = await confirmed(question);
  if (values === null) return;
  try {
    await order(path, body(values));
    say(done);
  } catch (error) {
    say(`Not done: ${error.message}`);
  }
  document.dispatchEvent(new Event("ordered"));
}

const REASON = { name: "reason", label: "Reason (kept in the agent's events)", maxlength: 500 };
const given = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value));

const AGENT_ORDERS = {
  drain: "No new calls go to it; calls in flight end as usual.",
  resume: "It takes calls again.",
  trip: "Its breakers are held open: tasks wait and new ones are refused until they are reset.",
  reset: "Its breakers close, and count failures from nothing.",
};

export function agentOrder(name, word, instance) {
  const what = instance ? `${name} at ${instance}` : name;
  const body = (values) => given({ ...values, instance });
  return carryOut(
    { title: `${word[0].toUpperCase()}${word.slice(1)} ${what}?`, text: AGENT_ORDERS[word], yes: word, fields: [REASON] },
    `/agents/${encodeURIComponent(name)}/${word}`, `${what}: ${word} is ordered`, body,
  );
}

export function limitOrder(name, limits) {
  const fields = [
    { name: "rate", label: "Calls a minute", type: "number", min: 1, value: limits.rate ?? "" },
    { name: "burst", label: "Burst", type: "number", min: 1, value: limits.burst ?? "" },
    { name: "max_connections", label: "Calls at once, by each worker", type: "number", min: 1, value: limits.max_connections },
    REASON,
  ];
  const body = ({ reason, ...values }) => ({
    ...Object.fromEntries(Object.entries(given(values)).map(([key, value]) => [key, Number(value)])),
    ...given({ reason }),
  });
  return carryOut(
    { title: `Limits of ${name}`, text: "They hold until they are cleared, after restarts too.", yes: "Set", fields },
    `/agents/${encodeURIComponent(name)}/limit`, `${name}: limits are set`, body,
  );
}

export const cancelTask = (id) => carryOut(
  { title: "Cancel this task?", text: `${id}: a call in flight is cut off.`, yes: "Cancel the task" },
  `/tasks/${encodeURIComponent(id)}/cancel`, "The task is asked to end",
);

export const changePriority = (id, now) => carryOut(
  {
    title: "Change the priority", text: `${id}: 5 is the most urgent, 1 the least.`, yes: "Change",
    fields: [{ name: "priority", label: "Priority", type: "number", min: 1, max: 5, value: now ?? 3 }],
  },
  `/tasks/${encodeURIComponent(id)}/priority`, "The priority is changed", ({ priority }) => ({ priority: Number(priority) }),
);

export const redrive = (id) => carryOut(
  { title: "Run this task again?", text: `${id} starts anew under the same id.`, yes: "Redrive" },
  `/dead-letters/${encodeURIComponent(id)}/redrive`, "The task runs again",
);

export const discard = (id) => carryOut(
  { title: "Discard this dead letter?", text: `${id} stays failed and cannot be run again.`, yes: "Discard" },
  `/dead-letters/${encodeURIComponent(id)}/discard`, "The dead letter is discarded",
);
