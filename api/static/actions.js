// What operators may order; nothing is carried out before they have confirmed it.

import { order, request } from "./api.js";
import { h } from "./dom.js";
import { count, plural, short } from "./format.js";

const REASON = { name: "reason", label: "Why (kept with the event)", maxlength: 500 };

const about = ({ agent, instance }) => (instance ? `${instance} of ${agent}` : `every instance of ${agent}`);
const agentOrder = (name) => ({ agent, instance }, { reason }) =>
  order(`/agents/${encodeURIComponent(agent)}/${name}`, { instance, reason });
const of = (kind, id, name) => `/${kind}/${encodeURIComponent(id)}/${name}`;

/** By the button's action: what is asked, and what is done and said then. */
const ORDERS = {
  drain: {
    title: "Drain?",
    text: (data) => `Send no new calls to ${about(data)}. Those in flight go on.`,
    confirm: "Drain",
    fields: () => [REASON],
    run: agentOrder("drain"),
    said: (data) => `Draining ${about(data)}.`,
  },
  resume: {
    title: "Resume?",
    text: (data) => `Send calls to ${about(data)} again, little by little.`,
    confirm: "Resume",
    fields: () => [REASON],
    run: agentOrder("resume"),
    said: (data) => `Resumed ${about(data)}.`,
  },
  trip: {
    title: "Hold the breaker open?",
    text: (data) => `Admit no call to ${about(data)} until the breaker is reset.`,
    confirm: "Hold open",
    danger: true,
    fields: () => [REASON],
    run: agentOrder("trip"),
    said: (data) => `The breaker of ${about(data)} is held open.`,
  },
  reset: {
    title: "Reset the breaker?",
    text: (data) => `Close the breaker of ${about(data)}, and forget what it had counted.`,
    confirm: "Reset",
    fields: () => [REASON],
    run: agentOrder("reset"),
    said: (data) => `The breaker of ${about(data)} is closed.`,
  },
  limit: {
    title: "Set limits?",
    text: ({ agent }) => `What is left empty stays as it is for ${agent}. They hold at once, and until they are taken back.`,
    confirm: "Set",
    fields: () => [
      { name: "rate", label: "Calls a minute", type: "number", min: 0.001, step: "any" },
      { name: "burst", label: "At once after a pause", type: "number", min: 1, step: 1 },
      { name: "mode", label: "Over the limit", options: [["", "as it is"], ["reject", "refuse"], ["queue", "call later"]] },
      { name: "max_connections", label: "Calls at once, by worker", type: "number", min: 1, max: 10000, step: 1 },
      { name: "clear", label: "First take back what was set before", type: "checkbox" },
      REASON,
    ],
    run: ({ agent }, values) => order(`/agents/${encodeURIComponent(agent)}/limit`, values),
    said: ({ agent }) => `The limits of ${agent} are set.`,
  },
  cancel: {
    title: "Cancel the task?",
    text: ({ task }) => `Task ${task} ends as cancelled; a call in flight is cut off.`,
    confirm: "Cancel the task",
    back: "Keep it",
    danger: true,
    run: ({ task }) => order(of("tasks", task, "cancel")),
    said: ({ task }) => `Task ${short(task)} was asked to end.`,
  },
  priority: {
    title: "Change its priority?",
    text: ({ task }) => `Where task ${task} waits, and for later attempts.`,
    confirm: "Change",
    fields: ({ priority }) => [
      { name: "priority", label: "Priority", value: priority, options: [["5", "5, most urgent"], ["4", "4"], ["3", "3"], ["2", "2"], ["1", "1, least urgent"]] },
    ],
    run: ({ task }, { priority }) => order(of("tasks", task, "priority"), { priority: Number(priority) }),
    said: ({ task }) => `The priority of task ${short(task)} is changed.`,
  },
  redrive: {
    title: "Redrive the task?",
    text: ({ task }) => `Task ${task} is run again under its id, by the route of the configuration as it is now.`,
    confirm: "Redrive",
    fields: () => [REASON],
    run: ({ task }, values) => order(of("dead-letters", task, "redrive"), values),
    said: ({ task }) => `Task ${short(task)} runs again.`,
  },
  discard: {
    title: "Discard the dead letter?",
    text: ({ task }) => `Task ${task} stays failed and cannot be run again from here.`,
    confirm: "Discard",
    danger: true,
    fields: () => [REASON],
    run: ({ task }, values) => order(of("dead-letters", task, "discard"), values),
    said: ({ task }) => `Task ${short(task)} was given up.`,
  },
  "redrive-many": many("redrive", "Redrive", "run again"),
  "discard-many": many("discard", "Discard", "given up, which cannot be undone"),
  "redrive-batch": {
    title: "Redrive the failed items?",
    text: ({ batch }) => `Every item of batch ${batch} is run again that waits among the dead letters.`,
    confirm: "Redrive",
    fields: () => [REASON],
    run: ({ batch }, values) => order(of("batches", batch, "redrive"), values),
    said: (_, { matched }) => `${plural(matched, "item")} will run again.`,
  },
  "cancel-batch": {
    title: "Cancel the batch?",
    text: ({ batch }) => `Items of batch ${batch} that have not ended are cancelled; calls in flight are cut off.`,
    confirm: "Cancel the batch",
    back: "Keep it",
    danger: true,
    run: ({ batch }) => order(of("batches", batch, "cancel")),
    said: ({ batch }) => `Batch ${short(batch)} was asked to end.`,
  },
};

/** An order about all dead letters that match; they are counted before anybody confirms. */
function many(name, verb, fate) {
  const body = (data) => {
    const filter = JSON.parse(data.filter);
    if (filter.priority) filter.priority = Number(filter.priority);
    return Object.keys(filter).length ? { filter } : { all: true };
  };
  const path = `/dead-letters/${name}`;
  return {
    title: `${verb} all that match?`,
    text: async (data) => {
      const { matched } = await request(path, { method: "POST", body: { ...body(data), dry_run: true } });
      return `${plural(matched, "dead letter")} match and will be ${fate}.`;
    },
    confirm: verb,
    danger: name === "discard",
    fields: () => [REASON],
    run: (data, { reason }) => order(path, { ...body(data), reason }),
    said: (_, { matched }) => `${count(matched)} are being worked off.`,
  };
}

const dialog = document.getElementById("dialog");

/** Whether there is such an order. */
export const isOrder = (action) => action in ORDERS;

/** Ask for the order, carry it out if it is confirmed, then tell what was done. */
export async function ask(action, data, tell) {
  const wanted = ORDERS[action];
  const text = await Promise.resolve(wanted.text(data)).catch((error) => {
    tell(error.message);
    return null;
  });
  if (text === null || dialog.open) return;
  const form = formOf(wanted, text, data);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    carryOut(wanted, data, form, tell);
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}

async function carryOut(wanted, data, form, tell) {
  const confirm = form.querySelector("[type=submit]");
  if (confirm.disabled) return;
  confirm.disabled = true;
  try {
    const answer = await wanted.run(data, values(form));
    dialog.close();
    tell(wanted.said(data, answer));
  } catch (error) {
    const complaint = form.querySelector(".complaint");
    complaint.textContent = error.message;
    complaint.hidden = false;
    confirm.disabled = false;
  }
}

function values(form) {
  const found = {};
  for (const field of form.querySelectorAll("input, select")) {
    if (field.type === "checkbox") found[field.name] = field.checked || null;
    else if (field.type === "number") found[field.name] = field.value && Number(field.value);
    else found[field.name] = field.value.trim();
  }
  return found;
}

function formOf({ title, fields, confirm, back = "Cancel", danger }, text, data) {
  const cancel = h("button", { type: "button", class: "quiet" }, back);
  cancel.addEventListener("click", () => dialog.close());
  return h(
    "form",
    { novalidate: false },
    h("h2", { id: "dialog-title" }, title),
    h("p", { id: "dialog-text" }, text),
    fields?.(data).map(input),
    h("p", { class: "complaint", role: "alert", hidden: true }),
    h("div", { class: "actions end" }, cancel, h("button", { type: "submit", class: danger ? "danger solid" : "solid" }, confirm)),
  );
}

function input({ name, label, options, value, type = "text", ...rest }) {
  const id = `dialog-${name}`;
  const named = h("label", { for: id }, label);
  if (options) {
    const choices = options.map(([given, text]) => h("option", { value: given, selected: given === String(value) }, text));
    return h("div", { class: "field" }, named, h("select", { id, name }, choices));
  }
  const field = h("input", { id, name, type, autocomplete: "off", ...rest });
  return type === "checkbox" ? h("div", { class: "field check" }, field, named) : h("div", { class: "field" }, named, field);
}
