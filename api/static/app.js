// The page: asks the API again and again while it is looked at, and shows what has changed.

import { query, request } from "./api.js";
import { ago, byId, clock, duration, el, keepRows, sparkline, state } from "./dom.js";
import { agentOrder, discard, limitOrder, redrive } from "./orders.js";
import { engineLink, openTask, page, refreshTask, STATES } from "./task.js";

const EVERY = 2000;
const TRAFFIC_EVERY = 5;
const MINUTES = 15;
const BREAKERS = { closed: "good", half_open: "warn", open: "bad", forced_open: "bad", disabled: "warn" };
const HEALTH = { healthy: "good", degraded: "warn", unhealthy: "bad" };

const listed = { cursors: [null], next: null };
let traffic = new Map();
let rounds = 0;

const tell = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value.toLocaleString()));
const idButton = (id) => el("button", { class: "link", type: "button", title: id, onclick: () => openTask(id) }, id.length > 18 ? `${id.slice(0, 8)}…${id.slice(-6)}` : id);
const action = (word, done, label) => el("button", { type: "button", "aria-label": label, onclick: done }, word);

async function overview() {
  const [health, numbers] = await Promise.all([request("/health"), request("/metrics")]);
  const shown = byId("state");
  const text = `${health.status}, ${health.agents_healthy} of ${health.agents_total} agents`;
  if (shown.textContent !== text) shown.textContent = text;
  shown.className = `state ${HEALTH[health.status] ?? ""}`;
  byId("numbers").replaceChildren(
    tell("Active", health.active_tasks), tell("Waiting", health.queue_size), tell("Completed", numbers.completed_tasks),
    tell("Failed", numbers.failed_tasks), tell("Cancelled", numbers.cancelled_tasks), tell("All", numbers.total_tasks),
  );
  queues(numbers.queue_sizes);
}

function queues(sizes) {
  const top = Math.max(1, ...Object.values(sizes));
  const words = { 5: "5, most urgent", 1: "1, least urgent" };
  byId("queue-bars").replaceChildren(...Object.entries(sizes).map(([name, size]) => {
    const level = name.replace("priority_", "");
    return el("div", { class: "bar" }, el("span", {}, `Priority ${words[level] ?? level}`),
      el("progress", { max: top, value: size, "aria-label": `Priority ${level}: ${size} waiting` }), el("span", { class: "n" }, String(size)));
  }));
}

async function agents() {
  const { agents: found } = await request("/agents");
  offer(found.map(({ name }) => name));
  keepRows(byId("agent-rows"), found.map((agent) => ({ ...agent, traffic: traffic.get(agent.name), minute: Math.floor(Date.now() / 60000) })),
    ({ name }) => name, agentCells, "No agent is configured.");
}

function offer(names) {
  const choice = byId("filters").elements.agent;
  if (choice.options.length !== names.length + 1) choice.append(...names.map((name) => el("option", {}, name)));
}

function agentCells(agent) {
  const { name, limits } = agent;
  const waiting = Object.values(agent.queue.depth).reduce((sum, each) => sum + each, 0);
  const rate = limits.rate ? `${limits.rate} a minute` : "no rate";
  return [
    el("th", { scope: "row" }, name, el("br"), el("small", {}, agent.capabilities.join(", "))),
    el("td", {}, agent.healthy ? state("healthy", "good") : state("unhealthy", "bad"), agent.queue.has_worker === false ? el("div", {}, state("no worker", "warn")) : null),
    el("td", {}, state(agent.breaker.replace("_", " "), BREAKERS[agent.breaker] ?? "")),
    el("td", {}, el("ul", { class: "instances" }, ...agent.instances.map((each) => instance(name, each, agent.instances.length === 1)))),
    el("td", { class: "n" }, String(waiting)),
    el("td", { class: "whole" }, rate, el("br"), el("small", {}, `${limits.max_connections} at once`)),
    ...trafficCells(agent.traffic),
    el("td", {}, el("div", { class: "orders" },
      ...ordersOf(agent).map((word) => action(word, () => agentOrder(name, word), `${word} ${name}`)),
      action("limit", () => limitOrder(name, limits), `limit ${name}`))),
  ];
}

// What makes sense as things are: nothing is drained twice, nothing reset that is closed.
function ordersOf({ instances, breaker }) {
  const draining = instances.filter((each) => each.draining).length;
  return [
    ...(draining < instances.length ? ["drain"] : []), ...(draining ? ["resume"] : []),
    ...(breaker === "forced_open" ? [] : ["trip"]), ...(breaker === "closed" ? [] : ["reset"]),
  ];
}

function instance(name, each, alone) {
  const kind = { healthy: "good", unhealthy: "bad" }[each.health.state] ?? "";
  const { breaker } = each;
  const held = breaker.state === "closed" ? "" : `, breaker ${breaker.state.replace("_", " ")} ${breaker.since ? `since ${clock(breaker.since)}` : ""}`;
  const title = [each.url, each.health.reason, breaker.reason].filter(Boolean).join("; ");
  return el("li", { title }, state(each.url.replace(/^https?:\/\//, ""), each.draining ? "warn" : kind),
    el("small", {}, `${each.draining ? " draining" : ""}${held}`), alone ? null : instanceOrder(name, each));
}

function instanceOrder(name, { url, draining }) {
  const word = draining ? "resume" : "drain";
  return el("span", { class: "small" }, " ", action(word, () => agentOrder(name, word, url), `${word} ${url}`));
}

function trafficCells(found) {
  if (!found) return [el("td", {}, el("small", {}, "none yet")), el("td", {}, "")];
  const { counts, latencies } = found;
  const recent = latencies.findLast((value) => value > 0) ?? 0;
  return [
    el("td", {}, sparkline(counts, `tasks in each of the last ${MINUTES} minutes`, String(counts.at(-1)))),
    el("td", {}, sparkline(latencies, "from accepted to completed, mean of each minute", duration(recent))),
  ];
}

async function measureTraffic() {
  const since = new Date(Date.now() - MINUTES * 60000).toISOString();
  const { tasks } = await request(query("/tasks", { status: "completed", limit: 500, since }));
  const now = Math.floor(Date.now() / 60000);
  const sums = new Map();
  for (const task of tasks) {
    const place = MINUTES - 1 - (now - Math.floor(Date.parse(task.updated_at) / 60000));
    if (!task.agent || place < 0 || place >= MINUTES) continue;
    if (!sums.has(task.agent)) sums.set(task.agent, { counts: Array(MINUTES).fill(0), seconds: Array(MINUTES).fill(0) });
    const sum = sums.get(task.agent);
    sum.counts[place] += 1;
    sum.seconds[place] += (Date.parse(task.updated_at) - Date.parse(task.created_at)) / 1000;
  }
  traffic = new Map([...sums].map(([name, { counts, seconds }]) => [name, { counts, latencies: seconds.map((sum, place) => (counts[place] ? sum / counts[place] : 0)) }]));
}

async function tasks() {
  const { status, agent, priority, pattern } = byId("filters").elements;
  const chosen = { status: status.value, agent: agent.value, priority: priority.value, pattern: pattern.value.trim() };
  const cursor = listed.cursors.at(-1);
  const found = await request(query("/tasks", { ...chosen, limit: 50, cursor }));
  if (cursor !== listed.cursors.at(-1)) return;
  listed.next = found.next_cursor;
  byId("older").disabled = !listed.next;
  byId("newest").disabled = listed.cursors.length === 1;
  const number = `Page ${listed.cursors.length}`;
  if (byId("page-number").textContent !== number) byId("page-number").textContent = number;
  keepRows(byId("task-rows"), found.tasks, ({ task_id: id }) => id, taskCells, "No task matches.");
}

function taskCells(task) {
  const took = (Date.parse(task.updated_at) - Date.parse(task.created_at)) / 1000;
  return [
    el("td", {}, idButton(task.task_id)), el("td", {}, state(task.status, STATES[task.status] ?? "", task.blocked_by)),
    el("td", {}, task.agent ?? ""), el("td", {}, task.pattern ?? ""), el("td", { class: "n" }, String(task.priority ?? "")),
    el("td", {}, clock(task.created_at)), el("td", { class: "n" }, ["completed", "failed", "cancelled"].includes(task.status) ? duration(took) : ""),
  ];
}

async function deadLetters() {
  const { dead_letters: found } = await request("/dead-letters?limit=50");
  keepRows(byId("dead-rows"), found, ({ task_id: id }) => id, (item) => [
    el("td", {}, idButton(item.task_id)), el("td", {}, item.agent ?? ""), el("td", { class: "error" }, item.error ?? ""),
    el("td", { class: "n" }, String(item.attempts ?? "")), el("td", {}, el("span", { title: clock(item.failed_at) }, ago(item.failed_at))),
    el("td", {}, el("div", { class: "orders" }, action("redrive", () => redrive(item.task_id), `redrive ${item.task_id}`), action("discard", () => discard(item.task_id), `discard ${item.task_id}`))),
  ], "None: every task that failed has been run again or discarded.");
}

async function batches() {
  const { batches: found } = await request("/batches?limit=20");
  keepRows(byId("batch-rows"), found, ({ batch_id: id }) => id, (batch) => {
    const done = batch.total - batch.pending;
    const link = engineLink(batch.batch_id);
    return [
      el("td", {}, link ? el("a", { href: link, target: "_blank", rel: "noopener", title: batch.batch_id }, `${batch.batch_id.slice(0, 8)}…`) : batch.batch_id),
      el("td", {}, state(batch.status, STATES[batch.status] ?? "")),
      el("td", {}, el("progress", { max: batch.total || 1, value: done, "aria-label": `${done} of ${batch.total} items have ended` })),
      ...["completed", "failed", "cancelled", "total"].map((name) => el("td", { class: "n" }, String(batch[name]))), el("td", {}, clock(batch.created_at)),
    ];
  }, "No batch is known.");
}

async function refresh() {
  if (rounds % TRAFFIC_EVERY === 0) await measureTraffic();
  rounds += 1;
  await Promise.all([overview(), agents(), tasks(), deadLetters(), batches(), refreshTask()]);
}

let busy = false;
async function round() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    await refresh();
    byId("gone").hidden = true;
    byId("refreshed").textContent = `as of ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    byId("gone").textContent = `${error.message}. What you see is old; trying again.`;
    byId("gone").hidden = false;
  } finally {
    busy = false;
  }
}

function theme(wanted) {
  document.documentElement.dataset.theme = wanted;
}

function start() {
  const kept = localStorage.getItem("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  theme(kept ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => localStorage.getItem("theme") || theme(dark.matches ? "dark" : "light"));
  byId("theme").addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    localStorage.setItem("theme", next);
    theme(next);
  });
  const first = () => { listed.cursors = [null]; round(); };
  byId("filters").addEventListener("change", (event) => event.target.name === "id" || first());
  byId("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = byId("filters").elements.id.value.trim();
    if (id) openTask(id); else first();
  });
  byId("older").addEventListener("click", () => { if (listed.next) { listed.cursors.push(listed.next); round(); } });
  byId("newest").addEventListener("click", first);
  document.addEventListener("ordered", round);
  document.addEventListener("visibilitychange", round);
  setInterval(round, EVERY);
  request("/dashboard/settings").then((found) => {
    Object.assign(page, found);
    byId("version").textContent = `Orchestration Agent ${found.version}`;
  }).catch(() => {}).finally(round);
}

start();
