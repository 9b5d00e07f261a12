// The newest orders: filters, search, and rows that stay still while somebody looks at them.

import { ago, amount, badge, count, empty, h, heading, reconcile, setAttribute, setText } from "./dom.js";

const FILTERS = [["all", "All"], ["in-flight", "In flight"], ["failed", "Failed"]];
const STEPS = [["CREATED", "placed"], ["VALIDATED", "validated"], ["PAYMENT", "paid"], ["CHECK_IN", "checked in"], ["SHIPPED", "shipped"]];
const SEARCH_MS = 250;
const TEXTS = {
  all: "No orders yet. Place one with the form.",
  "in-flight": "No order is in flight: all are failed, shipped or cancelled.",
  failed: "No order has failed.",
};

class BoardOrders extends HTMLElement {
  connectedCallback() {
    if (this.body) return;
    this.filter = "all";
    this.found = null;
    this.held = false;
    this.setAttribute("role", "region");
    this.setAttribute("aria-labelledby", "orders-title");
    const head = heading("Orders", "orders-title");
    this.note = head.note;
    const filters = h(
      "fieldset", { class: "segments" }, h("legend", { class: "hidden" }, "Show"),
      ...FILTERS.map(([value, label]) => h("label", {},
        h("input", { type: "radio", name: "filter", value, checked: value === "all", onchange: () => this.choose(value) }), h("span", {}, label))),
    );
    this.search = h("input", { type: "search", id: "search", placeholder: "Id, product, customer, reason", autocomplete: "off", spellcheck: "false", maxlength: "100", oninput: () => this.later() });
    this.table = h("table", { class: "orders" },
      h("caption", { class: "hidden" }, "Orders, newest first. The arrow keys move between them."),
      h("thead", {}, h("tr", {}, ...["Order", "State", "What", "Value", "Age"].map((title) => h("th", { scope: "col", class: title === "Value" || title === "Age" ? "right" : null }, title)))));
    this.body = h("tbody", { onkeydown: (event) => this.move(event), onfocusin: (event) => this.stop(event.target.closest("tr")) });
    this.table.append(this.body);
    this.nothing = empty(TEXTS.all);
    const scroller = h("div", { class: "scroller" }, this.table, this.nothing);
    scroller.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") this.hold(true); });
    scroller.addEventListener("pointerleave", () => this.hold(false));
    scroller.addEventListener("focusin", (event) => this.hold(event.target.matches(":focus-visible")));
    scroller.addEventListener("focusout", () => this.hold(false));
    this.append(
      head.element,
      h("div", { class: "tools" }, filters, h("label", { class: "search", for: "search" }, h("span", { class: "hidden" }, "Search orders"), this.search)),
      scroller,
    );
    this.show();
  }

  choose(filter) {
    this.filter = filter;
    this.show();
  }

  update(orders, now) {
    this.orders = orders;
    this.now = now;
    if (!this.held) this.show();
  }

  /** Shows ages as they grow. */
  tick(now) {
    this.now = now;
    if (this.held) return;
    for (const row of this.body.children) row.age(now());
  }

  hold(held) {
    if (this.held === held) return;
    this.held = held;
    if (!held) this.show();
    else this.describe(this.rows().length);
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), SEARCH_MS);
  }

  async look() {
    const text = this.search.value.trim();
    this.asked?.abort();
    if (!text) {
      this.found = null;
      this.show();
      return;
    }
    this.asked = new AbortController();
    try {
      const response = await fetch(`board/orders?q=${encodeURIComponent(text)}`, { signal: this.asked.signal });
      this.found = response.ok ? await response.json() : { orders: [], error: `The search was answered ${response.status}.` };
    } catch (error) {
      if (error.name === "AbortError") return;
      this.found = { orders: [], error: "The server does not answer." };
    }
    this.show();
  }

  rows() {
    if (this.found) {
      const fits = { all: () => true, failed: (o) => o.state === "FAILED", "in-flight": (o) => o.state === "CREATED" || o.state === "VALIDATED" };
      return this.found.orders.filter(fits[this.filter]);
    }
    if (!this.orders) return [];
    const byId = new Map(this.orders.rows.map((row) => [row.id, row]));
    return this.orders.lists[this.filter].map((id) => byId.get(id));
  }

  show() {
    const rows = this.rows();
    const now = this.now ? this.now() : Date.now();
    reconcile(this.body, rows, (row) => row.id, () => new Row((id) => this.select(id)).element, (element, row) => element.show(row, now, this.selected));
    this.stop([...this.body.children].find((row) => row.isStop) ?? this.body.firstElementChild);
    this.nothing.hidden = rows.length > 0;
    this.table.hidden = rows.length === 0;
    setText(this.nothing, this.found ? this.found.error ?? "No order fits." : TEXTS[this.filter]);
    this.describe(rows.length);
  }

  describe(shown) {
    if (this.found) setText(this.note, `${count(shown)} found${this.found.history ? "" : ", without the history"}`);
    else setText(this.note, this.held ? "held while you look at it" : `the newest ${count(shown)}`);
  }

  select(id) {
    this.selected = id;
    for (const row of this.body.children) row.select(id);
    if (id) this.dispatchEvent(new CustomEvent("order", { detail: id, bubbles: true }));
  }

  mark(id) {
    this.selected = id;
    for (const row of this.body.children) row.select(id);
  }

  /** Makes a row the only one that Tab stops at: the arrow keys move between rows. */
  stop(stop) {
    for (const row of this.body.children) row.stop(row === stop);
  }

  move(event) {
    const row = event.target.closest("tr");
    const rows = this.body;
    const next = { ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling, Home: rows.firstElementChild, End: rows.lastElementChild }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    next?.querySelector("button").focus();
  }
}

class Row {
  constructor(select) {
    const name = h("button", { type: "button", class: "link id" }, "");
    const state = badge("CREATED");
    const what = h("span", { class: "what" }, "");
    const why = h("span", { class: "why" }, "");
    const pips = STEPS.map(() => h("span", { class: "pip" }));
    const way = h("span", { class: "way" }, ...pips);
    const value = h("td", { class: "right number" }, "");
    const age = h("td", { class: "right number age" }, "");
    const element = h("tr", {},
      h("th", { scope: "row" }, name), h("td", {}, state), h("td", { class: "main" }, what, why, way), value, age);
    let shown = null;
    let changed = null;
    element.addEventListener("click", () => select(shown.id));
    element.age = (now) => setText(age, ago(Math.max(0, now - shown.created)));
    element.select = (id) => setAttribute(element, "aria-current", id === shown.id ? "true" : null);
    element.stop = (stop) => {
      element.isStop = stop;
      setAttribute(name, "tabindex", stop ? "0" : "-1");
    };
    element.show = (row, now, selected) => {
      shown = row;
      element.age(now);
      element.select(selected);
      if (changed === row.id + row.changed + row.state) return;
      changed = row.id + row.changed + row.state;
      setText(name, row.id);
      setAttribute(name, "title", row.id);
      state.show(row.state);
      setText(what, `${count(row.quantity)} × ${row.product}`);
      setText(why, row.reasons.join("; "));
      why.hidden = row.reasons.length === 0;
      way.hidden = row.reasons.length > 0;
      const reached = STEPS.filter(([stage]) => row.stages[stage] !== undefined);
      STEPS.forEach(([stage], index) => setAttribute(pips[index], "data-reached", row.stages[stage] !== undefined ? "true" : null));
      setAttribute(way, "role", "img");
      setAttribute(way, "aria-label", reached.map(([, word]) => word).join(", ") || "no stage seen");
      setAttribute(way, "title", reached.map(([, word]) => word).join(", "));
      setText(value, amount(row.value));
    };
    this.element = element;
  }
}

customElements.define("board-orders", BoardOrders);
