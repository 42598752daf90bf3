// Elements from data, and a page that is changed in place: what has focus keeps it.
// Every text goes through a text node, so nothing that a task carries can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element; false, null and undefined among attributes and children are left out. */
export function h(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function s(tag, attributes, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name === "key") element.key = String(value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...nodes(children));
  return element;
}

/** Whatever was given, as nodes. */
function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== false && child != null && child !== "")
    .map((child) => (child instanceof Node ? child : document.createTextNode(child)));
}

/** Give the parent these children, keeping the elements that are there already. */
export function patch(parent, ...children) {
  const wanted = nodes(children);
  const keys = new Set(wanted.map((node) => node.key));
  const keyed = new Map();
  for (const node of [...parent.childNodes]) {
    if (node.key === undefined) continue;
    if (keys.has(node.key)) keyed.set(node.key, node);
    else node.remove();
  }
  let place = parent.firstChild;
  for (const want of wanted) {
    const have = want.key === undefined ? place : keyed.get(want.key);
    if (!have || have.key !== want.key || !alike(have, want)) {
      parent.insertBefore(want, place);
      continue;
    }
    if (have === place) place = place.nextSibling;
    else parent.insertBefore(have, place);
    update(have, want);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function alike(have, want) {
  return have.nodeType === want.nodeType && have.nodeName === want.nodeName;
}

function update(have, want) {
  if (have.nodeType === Node.TEXT_NODE) {
    if (have.data !== want.data) have.data = want.data;
    return;
  }
  for (const { name } of [...have.attributes]) {
    // What somebody has folded out stays so.
    if (!want.hasAttribute(name) && name !== "open") unset(have, name);
  }
  for (const { name, value } of want.attributes) {
    if (have.getAttribute(name) !== value) set(have, name, value);
  }
  patch(have, ...want.childNodes);
}

// A field that somebody has typed into shows its property, no longer its attribute.
function set(element, name, value) {
  element.setAttribute(name, value);
  if (name === "value" && element instanceof HTMLInputElement) element.value = value;
  if (name === "selected") element.selected = true;
}

function unset(element, name) {
  element.removeAttribute(name);
  if (name === "value" && element instanceof HTMLInputElement) element.value = "";
}
