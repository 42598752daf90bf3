// The page: which view is shown, what it is told, and what its buttons do.

import { address, Failure, Poll, request, toLogin } from "./api.js";
import { agent } from "./agent.js";
import { ask, isOrder } from "./actions.js";
import { batch, batches } from "./batches.js";
import { deadLetters } from "./dead_letters.js";
import { h, patch } from "./dom.js";
import { clock, count, setClock } from "./format.js";
import { overview } from "./overview.js";
import { heading, to } from "./parts.js";
import { task } from "./task.js";
import { tasks } from "./tasks.js";
import { choose, remembered, THEMES } from "./theme.js";

const PAUSE_MS = 2000;
const TRAFFIC_MS = 5000;
const TOLD_MS = 8000;

const ROUTES = [
  [/^$/, overview],
  [/^agents\/([^/]+)$/, agent],
  [/^tasks$/, tasks],
  [/^tasks\/([^/]+)$/, task],
  [/^dead-letters$/, deadLetters],
  [/^batches$/, batches],
  [/^batches\/([^/]+)$/, batch],
];
const NAV = [
  ["", "Overview"],
  ["tasks", "Tasks"],
  ["dead-letters", "Dead letters"],
  ["batches", "Batches"],
];

const element = (id) => document.getElementById(id);
const main = element("main");

const shared = { index: null, who: null, health: null, metrics: null, agents: null, traffic: null };
let trafficAt = -Infinity;
let route = read();
let asOf = null;
let fresh = true;

/** What the address says. */
function read() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  for (const [form, view] of ROUTES) {
    const found = form.exec(path);
    if (found) return { path, view, params: { id: decode(found[1]) }, query: Object.fromEntries(new URLSearchParams(search)) };
  }
  return { path, view: null, params: {}, query: {} };
}

function decode(text) {
  try {
    return text && decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Ask everything that is shown; whether all of it was answered. */
async function look() {
  const asked = route;
  const looks = await Promise.allSettled([common(), asked.view?.load(asked.params, asked.query)]);
  if (asked !== route) return true;
  const failures = looks.map((each) => each.reason).filter(Boolean);
  const [, found] = looks;
  if (found.status === "fulfilled" && shared.agents) {
    asked.data = found.value;
    asked.missing = null;
    asOf = Date.now();
  } else if (found.reason?.status === 404) {
    asked.missing = found.reason.message;
  }
  warn(failures.find((each) => each.status !== 404));
  draw();
  return failures.every((each) => each.status && each.status < 500);
}

/** Whether they may see the numbers of all tenants together; others do not ask for them. */
const seesAll = ({ tenant }) => tenant == null;

async function common() {
  shared.index ??= await request("/");
  shared.who ??= await request("/session");
  const all = seesAll(shared.who);
  if (all) await traffic();
  const [health, metrics, agents] = await Promise.all([
    request("/health", { expected: [503] }),
    all ? request("/metrics") : null,
    request("/agents"),
  ]);
  setClock(health.timestamp);
  Object.assign(shared, { health, metrics, agents });
  if (health.status === "unhealthy") throw new Failure(503, "The engine does not answer");
}

/** The traffic changes slowly, and is worth no error of its own. */
async function traffic() {
  if (performance.now() - trafficAt < TRAFFIC_MS) return;
  shared.traffic = await request("/traffic").catch(() => shared.traffic);
  trafficAt = performance.now();
}

const poll = new Poll(look, PAUSE_MS);

function warn(failure) {
  const banner = element("banner");
  banner.hidden = !failure;
  if (!failure) {
    if (banner.textContent) tell("Everything answers again.");
    banner.textContent = "";
    return;
  }
  const still = asOf ? ` What is shown is of ${clock(asOf)}.` : "";
  const text = `${failure.message}.${still} Trying again.`;
  // Said once, not at each look.
  if (banner.textContent !== text) banner.textContent = text;
}

function draw() {
  const { view, params, query, data, missing } = route;
  chrome();
  if (!view) patch(main, notFound("There is no such page."));
  else if (missing) patch(main, notFound(missing));
  else if (data) patch(main, ...view.render(data, { params, query, shared }).flat());
  else patch(main, heading(view.title(params)), h("p", { class: "empty", key: "wait" }, "Asking the API …"));
  settle();
}

const notFound = (text) => [heading("Not found"), h("p", { class: "empty", key: "missing" }, text, " ", h("a", { href: "#/" }, "Back to the overview"))];

/** After a change of the address the focus is at the new view's heading, unless it was kept. */
function settle() {
  if (!fresh || !(route.data || route.missing || !route.view)) return;
  fresh = false;
  if (document.activeElement === document.body && settled) main.querySelector("h1")?.focus();
  settled = true;
}
let settled = false;

function chrome() {
  const title = route.view ? route.view.title(route.params) : "Not found";
  const name = shared.index?.name ?? "Orchestration Agent";
  document.title = `${title} – ${name}`;
  patch(element("name"), name);
  const [here] = route.path.split("/");
  const current = here === "agents" ? "" : here;
  patch(element("nav"), NAV.map(([path, text]) => h("li", { key: path }, h("a", { href: `#/${path}`, "aria-current": path === current ? "page" : null }, text, path === "dead-letters" && letters()))));
  patch(element("foot"), footer());
  element("live").setAttribute("aria-pressed", String(poll.on));
  patch(element("who"), identity(shared.who));
}

/** As whom the page is shown, where somebody had to log in. */
function identity(who) {
  if (!who || who.kind === "anonymous") return [];
  const name = who.tenant ? `${who.name} (${who.tenant})` : who.name;
  return [h("span", null, name), h("button", { type: "button", class: "quiet", "data-action": "logout" }, "Log out")];
}

function letters() {
  const number = shared.metrics?.dead_letters;
  return number > 0 && h("span", { class: "badge" }, count(number), h("span", { class: "unseen" }, " waiting"));
}

function footer() {
  const { index, agents } = shared;
  const stale = agents && !agents.fleet.reachable;
  return [
    h("span", null, asOf ? `As of ${clock(asOf)}${poll.on ? "" : ", paused"}` : "Not answered yet"),
    stale && h("span", null, "the fleet does not answer: agents are shown as they were last known"),
    index && h("span", null, `Version ${index.version}`),
    index && h("a", { href: index.docs }, "API"),
    index?.temporal.ui_url && h("a", { href: index.temporal.ui_url, target: "_blank", rel: "noopener noreferrer" }, "Temporal Web UI", h("span", { class: "unseen" }, " (opens a new tab)")),
  ];
}

let telling;

function tell(text) {
  element("said").textContent = text;
  clearTimeout(telling);
  telling = setTimeout(() => (element("said").textContent = ""), TOLD_MS);
  poll.now();
}

function theme(name) {
  choose(name);
  element("theme").textContent = `Theme: ${name}`;
}

/** End the session, and show where another begins. */
async function logout() {
  try {
    await request("/session", { method: "DELETE", accepted: () => null });
    toLogin();
  } catch (error) {
    tell(error.message);
  }
}

const TOOLS = {
  live() {
    poll.on = !poll.on;
    chrome();
    if (poll.on) poll.now();
  },
  logout,
  theme: () => theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]),
};

document.addEventListener("click", (event) => {
  const from = event.target.closest("[data-action]");
  const action = from?.dataset.action;
  if (action in TOOLS) TOOLS[action]();
  else if (isOrder(action)) ask(action, { ...from.dataset }, tell);
});

element("dialog").addEventListener("close", () => {
  if (document.activeElement === document.body) main.querySelector("h1")?.focus();
});

element("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

document.addEventListener("change", (event) => filter(event.target.closest("[data-filters]")));

document.addEventListener("submit", (event) => {
  event.preventDefault();
  filter(event.target.closest("[data-filters]"));
  if (event.target.closest("[data-find]")) location.hash = to(["tasks", event.target.elements.id.value.trim()]);
});

/** Filters are the address, so that they can be kept, shared and gone back to. */
function filter(form) {
  if (form) location.hash = address(form.dataset.filters, Object.fromEntries(new FormData(form)));
}

window.addEventListener("hashchange", () => {
  const before = route;
  route = read();
  fresh = true;
  if (before.path !== route.path) {
    document.activeElement?.blur();
    window.scrollTo(0, 0);
  } else {
    route.data = before.data;
    if (route.query.page) element("said").textContent = `Page ${route.query.page}`;
  }
  if (!route.data) main.replaceChildren();
  draw();
  poll.now();
});

theme(remembered());
draw();
poll.now();
