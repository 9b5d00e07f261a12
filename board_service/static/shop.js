// Stock with reservations, and sessions of customers near the fraud limit.

import { ago, amount, bar, count, h, Panel, reconcile, setAttribute, setText } from "./dom.js";

const LOW = 10;

class BoardStock extends Panel {
  connectedCallback() {
    if (this.head) return;
    this.build("Stock", "stock-title", "No stock has been announced on warehouse-inventory.");
    this.body = h("tbody");
    this.table = h("table", {}, h("caption", { class: "hidden" }, "Stock by product, the scarcest first"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Product"), h("th", { scope: "col", class: "right" }, "Available"), h("th", { scope: "col", class: "right" }, "Reserved"), h("th", { scope: "col", class: "right" }, "In stock"))),
      this.body);
    this.append(h("div", { class: "scroller short", tabindex: "0", role: "group", "aria-label": "Stock" }, this.table, this.nothing));
  }

  update(stock) {
    this.table.hidden = stock.rows.length === 0;
    this.nothing.hidden = stock.rows.length > 0;
    setText(this.head.note, stock.products > stock.rows.length ? `the ${count(stock.rows.length)} scarcest of ${count(stock.products)} products` : `${count(stock.products)} products`);
    reconcile(this.body, stock.rows, (row) => row.product, () => {
      const cells = [h("th", { scope: "row" }), h("td", { class: "right number" }), h("td", { class: "right number" }), h("td", { class: "right number" })];
      const element = h("tr", {}, ...cells);
      element.show = (row) => {
        setText(cells[0], row.product);
        const low = row.count !== null && row.available < LOW;
        setText(cells[1], row.count === null ? "–" : `${low ? "▼ " : ""}${count(row.available)}`);
        setAttribute(cells[1], "title", low ? "fewer than ten are available" : null);
        setText(cells[2], count(row.reserved));
        setText(cells[3], row.count === null ? "unknown" : count(row.count));
        setAttribute(element, "data-tone", low ? "late" : null);
      };
      return element;
    }, (element, row) => element.show(row));
  }
}

class BoardSessions extends Panel {
  connectedCallback() {
    if (this.head) return;
    this.build("Fraud sessions", "sessions-title", "No customer is near the limit.");
    this.list = h("ul", { class: "bars" });
    this.append(this.list, this.nothing);
  }

  update(sessions, now, currency) {
    setText(this.head.note, `from 60 % of the limit of ${amount(sessions.limit)} ${currency}${sessions.near > sessions.rows.length ? ` · the highest ${sessions.rows.length} of ${count(sessions.near)}` : ""}`);
    this.nothing.hidden = sessions.rows.length > 0;
    reconcile(this.list, sessions.rows, (row) => row.customer, () => {
      const name = h("span", { class: "label" });
      const total = h("span", { class: "number" });
      const fill = bar();
      const note = h("span", { class: "note" });
      const element = h("li", {}, name, total, fill, note);
      element.show = (row) => {
        const over = row.total >= sessions.limit;
        setText(name, `Customer ${row.customer}`);
        setText(total, amount(row.total));
        fill.show(row.total / sessions.limit, over ? "bad" : "late");
        setText(note, `${over ? "over the limit, orders fail" : `${Math.floor((row.total / sessions.limit) * 100)} %`} · last order ${ago(Math.max(0, now - row.end))}${now - row.end >= 1000 ? " ago" : ""}`);
      };
      return element;
    }, (element, row) => element.show(row));
  }
}

customElements.define("board-stock", BoardStock);
customElements.define("board-sessions", BoardSessions);
