// Small helpers for the document. Data becomes text, never markup.

export const byId = (id) => document.getElementById(id);

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Keeps the rows of a table in step with items: a row is made anew only when its item has changed,
// so that focus and selection stay where they are.
export function keepRows(body, items, key, cells, empty) {
  const known = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const columns = body.closest("table").tHead.rows[0].cells.length;
  const rows = items.map((item) => {
    const name = key(item);
    const stamp = JSON.stringify(item);
    let row = known.get(name);
    if (!row || row.stamp !== stamp) {
      const focused = row?.contains(document.activeElement) ? document.activeElement.textContent : null;
      const fresh = el("tr", { "data-key": name }, ...cells(item));
      fresh.stamp = stamp;
      if (row) row.replaceWith(fresh);
      if (focused) [...fresh.querySelectorAll("button, a")].find((each) => each.textContent === focused)?.focus();
      row = fresh;
    }
    return row;
  });
  if (!rows.length) {
    const stamp = `empty: ${empty}`;
    if (body.children.length === 1 && body.firstChild.stamp === stamp) return;
    const row = el("tr", {}, el("td", { class: "empty", colspan: columns }, empty));
    row.stamp = stamp;
    rows.push(row);
  }
  const wanted = new Set(rows);
  [...body.children].forEach((row) => wanted.has(row) || row.remove());
  rows.forEach((row, place) => body.children[place] === row || body.insertBefore(row, body.children[place] ?? null));
}

const SVG = "http://www.w3.org/2000/svg";

export function sparkline(values, label, text) {
  const top = Math.max(...values, 0) || 1;
  const step = 100 / Math.max(values.length - 1, 1);
  const points = values.map((value, place) => `${(place * step).toFixed(1)},${(20 - (18 * value) / top).toFixed(1)}`);
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 100 22");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", `M${points.join("L")}`);
  picture.append(path);
  return el("span", { class: "spark", title: label }, picture, el("span", {}, text));
}

export const state = (word, kind, title) => el("span", { class: `state ${kind}`, title }, word);

export function ago(moment) {
  if (!moment) return "";
  const seconds = Math.max(0, (Date.now() - Date.parse(moment)) / 1000);
  return `${duration(seconds)} ago`;
}

export function duration(seconds) {
  if (seconds < 0.995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const clock = (moment) => (moment ? new Date(moment).toLocaleString() : "");
