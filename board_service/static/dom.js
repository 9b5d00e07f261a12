// Elements without markup in strings, and numbers, times and durations as they are shown.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "line", "g", "rect", "circle"]);

/** Makes an element. Keys of `attributes` beginning with "on" are listeners; null and false leave an attribute out. */
export function h(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text, and touches the document only if it differs. */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Sets or removes an attribute, and touches the document only if it differs. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/**
 * Makes the children of an element those of `items`, each found again by its key, so that focus and selection stay.
 * Elements that are no longer needed are reused for new items: a long session makes no more of them.
 */
export function reconcile(parent, items, key, create, update) {
  const known = parent.itemsByKey ?? (parent.itemsByKey = new Map());
  const wanted = new Set(items.map(key));
  const free = [];
  for (const [name, element] of known) {
    if (!wanted.has(name)) {
      known.delete(name);
      free.push(element);
    }
  }
  let before = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let element = known.get(name);
    if (element === undefined) {
      element = free.pop() ?? create();
      known.set(name, element);
    }
    update(element, item);
    if (element === before) before = before.nextElementSibling;
    else parent.insertBefore(element, before);
  }
  for (const element of free) element.remove();
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const amounts = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export const count = (number) => whole.format(number);
export const rate = (number) => (number >= 100 ? whole.format(number) : tenths.format(number));
export const amount = (number) => amounts.format(number);

/** A duration, from milliseconds: one unit, two or three digits. */
export function duration(ms) {
  if (ms < 1) return "<1 ms";
  if (ms < 1000) return `${whole.format(ms)} ms`;
  if (ms < 10_000) return `${tenths.format(ms / 1000)} s`;
  if (ms < 100_000) return `${whole.format(ms / 1000)} s`;
  if (ms < 5_400_000) return `${whole.format(ms / 60_000)} min`;
  if (ms < 129_600_000) return `${whole.format(ms / 3_600_000)} h`;
  return `${whole.format(ms / 86_400_000)} d`;
}

/** How long ago, in whole seconds, minutes, hours or days. */
export const ago = (ms) => (ms < 1000 ? "now" : duration(Math.floor(ms / 1000) * 1000).replace(".0 ", " "));

export const clock = (ms) => new Date(ms).toISOString().slice(11, 23);
export const day = (ms) => new Date(ms).toISOString().slice(0, 10);

/** The state of an order: a shape and a word, so that colour is not needed. */
const SHAPES = {
  CREATED: "M8 2.5a5.5 5.5 0 1 0 5.5 5.5M8 5v3.2l2 1.3",
  VALIDATED: "M3 8.5l3.2 3.2L13 4.8",
  FAILED: "M4 4l8 8M12 4l-8 8",
  SHIPPED: "M1.5 4.5h8v6h-8zM9.5 7h3l2 2v1.5h-5M4.5 12.5h.01M11.5 12.5h.01",
  CANCELLED: "M3 8h10",
};

export function badge(state) {
  const word = h("span", {}, "");
  const path = h("path", { d: "" });
  const icon = h("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, path);
  const element = h("span", { class: "badge" }, icon, word);
  element.show = (shown) => {
    setText(word, shown);
    setAttribute(element, "data-state", shown);
    setAttribute(path, "d", SHAPES[shown] ?? "M8 8h.01");
  };
  element.show(state);
  return element;
}

/** A bar from 0 to 1. Its value is said by text beside it. */
export function bar() {
  const fill = h("span", { class: "fill" });
  const element = h("span", { class: "bar", "aria-hidden": "true" }, fill);
  element.show = (part, tone = "") => {
    fill.style.setProperty("inline-size", `${Math.round(Math.min(Math.max(part, 0), 1) * 1000) / 10}%`);
    setAttribute(element, "data-tone", tone);
  };
  return element;
}

/** A panel's heading and a note beside it. */
export function heading(text, id) {
  const note = h("span", { class: "note" }, "");
  return { element: h("div", { class: "head" }, h("h2", { id }, text), note), note };
}

export const empty = (text) => h("p", { class: "empty" }, text);

/** A region of the page with a heading, and a text that says when there is nothing to show. */
export class Panel extends HTMLElement {
  build(title, id, nothing) {
    this.setAttribute("role", "region");
    this.setAttribute("aria-labelledby", id);
    this.head = heading(title, id);
    this.nothing = empty(nothing);
    this.append(this.head.element);
  }
}
