// The pieces that the views are made of.

import { h, s } from "./dom.js";
import { ago, clock, count, duration, short } from "./format.js";
import { address } from "./api.js";

// Colour, shape and word say the same thing.
const SHAPES = {
  good: "M4.5 8.2 7 10.7l4.5-5",
  bad: "M5.3 5.3l5.4 5.4M10.7 5.3l-5.4 5.4",
  warn: "M8 4.6v4M8 11.2v.2",
  busy: "M6.5 5.2 11 8l-4.5 2.8Z",
  idle: "M5.5 8h5",
  off: "M4.6 11.4l6.8-6.8",
};
const STATES = {
  completed: ["good", "completed"],
  failed: ["bad", "failed"],
  cancelled: ["off", "cancelled"],
  running: ["busy", "running"],
  queued: ["idle", "queued"],
  healthy: ["good", "healthy"],
  unhealthy: ["bad", "unhealthy"],
  degraded: ["warn", "degraded"],
  unknown: ["idle", "not checked yet"],
  closed: ["good", "closed"],
  half_open: ["warn", "half-open"],
  open: ["bad", "open"],
  forced_open: ["bad", "held open"],
  disabled: ["off", "taken out"],
  draining: ["off", "draining"],
  dead_letter: ["warn", "dead letter"],
  success: ["good", "success"],
};

/** A state as a small sign and its word. */
export function sign(state, word) {
  const [kind, known] = STATES[state] ?? ["idle", state];
  return h(
    "span",
    { class: `sign ${kind}` },
    s(
      "svg",
      { viewBox: "0 0 16 16", "aria-hidden": "true" },
      s("circle", { cx: 8, cy: 8, r: 7 }),
      s("path", { d: SHAPES[kind] }),
    ),
    word ?? known,
  );
}

/** A moment, told by how long ago it was. */
export function since(stamp) {
  return h("time", { datetime: stamp, title: clock(stamp) }, ago(stamp));
}

/**
 * A table of its own, which scrolls by itself where it is too wide.
 * Columns are `{head, cell, kind}`: kind is `number`, `wide` (left out on small screens) or both.
 */
export function table(caption, columns, rows, { key, empty, hidden = true }) {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  return h(
    "div",
    { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    h(
      "table",
      null,
      h("caption", { class: hidden && "unseen" }, caption),
      h("thead", null, h("tr", null, columns.map(head))),
      h("tbody", null, rows.map((row) => h("tr", { key: key(row) }, cells(columns, row)))),
    ),
  );
}

const head = ({ head: text, kind }) => h("th", { scope: "col", class: kind }, text);

function cells(columns, row) {
  return columns.map(({ cell, kind }, index) =>
    index ? h("td", { class: kind }, cell(row)) : h("th", { scope: "row", class: kind }, cell(row)),
  );
}

/** Facts by name; those without a value are left out. */
export function facts(...pairs) {
  const told = pairs.filter(([, value]) => value !== "" && value != null && value !== false);
  return h("dl", { class: "facts" }, told.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

export function section(title, { id, aside } = {}, ...children) {
  return h(
    "section",
    { class: "card", "aria-labelledby": id, key: id },
    h("div", { class: "card-head" }, h("h2", { id }, title), aside),
    children,
  );
}

export function heading(title, ...aside) {
  return h("div", { class: "heading", key: "heading" }, h("h1", { tabindex: "-1" }, title), aside);
}

/** A button that asks before it acts; `about` is who the order is about. */
export function button(action, label, about, { danger, title } = {}) {
  const data = Object.entries(about).map(([name, value]) => [`data-${name}`, value]);
  return h(
    "button",
    {
      type: "button",
      class: danger ? "danger" : null,
      "aria-label": title,
      "data-action": action,
      ...Object.fromEntries(data),
    },
    label,
  );
}

/** The address of a view. */
export function to(path, query) {
  return `#/${address(path.map(encodeURIComponent).join("/"), query)}`;
}

export const link = (path, text, query, attributes) => h("a", { href: to(path, query), ...attributes }, text);

export const taskLink = (id, text) => link(["tasks", id], text ?? h("code", { title: id }, short(id)));

export const agentLink = (name) => (name ? link(["agents", name], name) : "—");

/** A link to a workflow in the engine's Web UI; nothing where nobody knows where that is. */
export function engineLink(index, workflow, text = "Open in Temporal") {
  const { ui_url: base, namespace } = index?.temporal ?? {};
  if (!base) return null;
  const href = `${base}/namespaces/${encodeURIComponent(namespace)}/workflows/${encodeURIComponent(workflow)}`;
  return h("a", { href, class: "outward", target: "_blank", rel: "noopener noreferrer" }, text, h("span", { class: "unseen" }, " (opens a new tab)"));
}

/** Links through a list's pages; the trail remembers the cursors of the pages before. */
const trails = new Map();

export function pager(path, query, next, noun) {
  const { cursor, page: given, ...filters } = query;
  const page = Number(given ?? 1);
  const name = to(path, filters);
  const trail = trails.get(name) ?? new Map();
  trails.set(name, trail.set(page, cursor));
  const at = (number, where) => to(path, { ...filters, ...(number > 1 ? { cursor: where, page: number } : {}) });
  if (page === 1 && !next) return null;
  const known = page === 2 || trail.has(page - 1);
  return h(
    "nav",
    { class: "pager", "aria-label": `Pages of ${noun}`, key: "pager" },
    page > 1 && h("a", { href: at(1) }, "First"),
    page > 1 && known && h("a", { href: at(page - 1, trail.get(page - 1)) }, "Previous"),
    h("span", null, `Page ${page}`),
    next && h("a", { href: at(page + 1, next) }, "Next"),
  );
}

/** A row of filters, which are the query of the view's address. */
export function filters(path, fields, query) {
  return h(
    "form",
    { class: "filters", role: "search", "aria-label": "Filters", "data-filters": to(path), key: "filters" },
    fields.map((field) => filter(field, query[field.name] ?? "")),
    Object.keys(query).length > 0 && h("a", { href: to(path), class: "clear" }, "Clear"),
  );
}

function filter({ name, label, options, hint }, value) {
  const id = `filter-${name}`;
  const field = options
    ? h("select", { id, name }, options.map(([given, text]) => h("option", { value: given, selected: given === value }, text)))
    : h("input", { id, name, type: "search", value, placeholder: hint, autocomplete: "off", spellcheck: "false", maxlength: 200 });
  return h("div", { class: "field" }, h("label", { for: id }, label), field);
}

const WIDTH = 120;
const HEIGHT = 28;

/** Bars over time, with what failed on top. */
export function trafficSpark(traffic, name) {
  const { completed, failed } = traffic;
  const most = Math.max(1, ...completed.map((each, at) => each + failed[at]));
  const step = WIDTH / completed.length;
  const bar = (kind, at, from, size) =>
    size > 0 && s("rect", { class: kind, x: (at * step).toFixed(2), width: (step * 0.8).toFixed(2), y: (HEIGHT - from - size).toFixed(2), height: size.toFixed(2) });
  const scaled = (number) => (number / most) * (HEIGHT - 2);
  return spark(
    name,
    s("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
    completed.map((each, at) => [
      bar("bar", at, 0, scaled(each)),
      bar("bar bad", at, scaled(each), scaled(failed[at])),
    ]),
  );
}

/** A line over time; where nothing is known it is broken. */
export function lineSpark(values, name) {
  const known = values.filter((each) => each != null);
  const most = Math.max(...known, 1e-9);
  const step = WIDTH / values.length;
  const point = (value, at) => [(at + 0.5) * step, HEIGHT - 3 - (value / most) * (HEIGHT - 6)];
  const dots = values.map((value, at) => (value == null ? null : point(value, at)));
  return spark(
    name,
    s("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
    runs(dots).map((run) =>
      run.length === 1
        ? s("circle", { class: "dot", cx: run[0][0].toFixed(1), cy: run[0][1].toFixed(1), r: 1.4 })
        : s("polyline", { class: "line", points: run.map((at) => at.map((n) => n.toFixed(1)).join(",")).join(" ") }),
    ),
  );
}

function runs(dots) {
  const found = [[]];
  for (const dot of dots) {
    if (dot) found.at(-1).push(dot);
    else if (found.at(-1).length) found.push([]);
  }
  return found.filter((run) => run.length);
}

function spark(name, ...children) {
  return s("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": name }, children);
}

const total = (numbers) => numbers.reduce((sum, each) => sum + each, 0);

/** An agent's traffic: the last minute as a number, ten minutes as bars. */
export function trafficCell(traffic, seconds) {
  if (!traffic) return h("span", { class: "faint" }, "none");
  const minute = Math.round(60 / seconds);
  const last = total(traffic.completed.slice(-minute)) + total(traffic.failed.slice(-minute));
  const all = [total(traffic.completed), total(traffic.failed)];
  const name = `Last ten minutes: ${count(all[0])} completed, ${count(all[1])} failed`;
  return h("span", { class: "sparked" }, trafficSpark(traffic, name), h("span", { class: "figure" }, `${count(last)}/min`));
}

/** How long an agent's tasks took: the last known as a number, ten minutes as a line. */
export function latencyCell(traffic) {
  const known = traffic?.seconds.filter((each) => each != null) ?? [];
  if (!known.length) return h("span", { class: "faint" }, "none");
  const name = `Last ten minutes: ${duration(Math.min(...known))} to ${duration(Math.max(...known))}`;
  return h("span", { class: "sparked" }, lineSpark(traffic.seconds, name), h("span", { class: "figure" }, duration(known.at(-1))));
}

/** A bar of so much of a whole. */
export function share(part, whole, name) {
  const width = whole ? (100 * part) / whole : 0;
  return s(
    "svg",
    { class: "share", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: name ? "img" : null, "aria-label": name, "aria-hidden": name ? null : "true" },
    s("rect", { class: "track", width: 100, height: 6, rx: 1 }),
    width > 0 && s("rect", { class: "bar", width: width.toFixed(2), height: 6, rx: 1 }),
  );
}
