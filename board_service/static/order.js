// One order: its timeline from POST to e-mail and shipment, live while it is under way.

import { amount, badge, clock, count, day, duration, empty, h, heading, reconcile, setAttribute, setText } from "./dom.js";

const WORDS = {
  RECEIVED: "Received by the API", CREATED: "Written to Kafka", VALIDATED: "Validated", FAILED: "Failed", ENRICHED: "Joined with the customer", EMAIL_SENT: "E-mail accepted by the mail server", EMAIL_REJECTED: "E-mail not sent", PAYMENT: "Payment", CHECK_IN: "Checked in",
  CHECK_IN_REJECTED: "Check-in rejected", FULFILLED: "All prerequisites met", SHIPPED: "Shipped", CANCELLATION: "Cancellation asked for",
  CANCELLED: "Cancelled", REFUND: "Refund", LEVEL: "Sorted by customer level", DEAD_LETTER: "Dead letter",
};
const CHECKS = { FRAUD_CHECK: "Fraud check", INVENTORY_CHECK: "Inventory check", ORDER_DETAILS_CHECK: "Details check" };

class BoardOrder extends HTMLElement {
  connectedCallback() {
    if (this.head) return;
    this.setAttribute("role", "region");
    this.setAttribute("aria-labelledby", "order-title");
    this.head = heading("Order", "order-title");
    this.head.element.querySelector("h2").tabIndex = -1;
    this.close = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.dispatchEvent(new CustomEvent("order", { detail: null, bubbles: true })) }, "Close");
    this.head.element.append(this.close);
    this.badge = badge("CREATED");
    this.name = h("p", { class: "id" }, "");
    this.facts = h("p", { class: "facts" }, "");
    this.reasons = h("ul", { class: "reasons" });
    this.events = h("ol", { class: "timeline" });
    this.source = h("p", { class: "note" }, "");
    this.content = h("div", { hidden: true }, h("div", { class: "line" }, this.name, this.badge), this.facts, this.reasons, this.events, this.source);
    this.nothing = empty("Choose an order to see its way, or place one.");
    this.append(this.head.element, this.content, this.nothing);
  }

  /** Follows an order; null: none. */
  follow(id, currency, decided) {
    this.stream?.close();
    this.stream = null;
    this.id = id;
    this.currency = currency;
    this.decided = decided;
    this.close.hidden = id === null;
    this.content.hidden = true;
    this.nothing.hidden = false;
    setText(this.nothing, id === null ? "Choose an order to see its way, or place one." : "Looking for the order …");
    if (id !== null) this.open();
  }

  open() {
    const stream = new EventSource(`board/orders/${encodeURIComponent(this.id)}/events`);
    this.stream = stream;
    stream.addEventListener("timeline", (event) => { if (this.stream === stream) this.show(JSON.parse(event.data)); });
    stream.addEventListener("end", () => stream.close());
    stream.addEventListener("error", () => {
      if (stream.readyState !== EventSource.CLOSED || this.stream !== stream) return;
      setTimeout(() => { if (this.stream === stream) this.open(); }, 2000);
    });
  }

  show(order) {
    if (order.state === null) {
      setText(this.nothing, `There is no order ${order.id} (yet).`);
      return;
    }
    this.content.hidden = false;
    this.nothing.hidden = true;
    setText(this.name, order.id);
    this.badge.show(order.state);
    setText(this.facts, `${count(order.quantity)} × ${order.product} at ${amount(order.price)} = ${amount(order.value)} ${this.currency} · customer ${order.customer}${day(order.created) === day(Date.now()) ? "" : ` · ${day(order.created).replaceAll("-", "\u2011")}`}`);
    reconcile(this.reasons, order.reasons.map((text, index) => ({ text, index })), (r) => r.index, () => h("li", {}), (element, r) => setText(element, r.text));
    this.reasons.hidden = order.reasons.length === 0;
    let before = order.created;
    const events = [{ stage: "RECEIVED", at: order.created }, ...order.events].map((event, index) => {
      const step = { event, index, after: event.at - order.created, since: Math.max(0, event.at - before) };
      before = event.at;
      return step;
    });
    const longest = Math.max(1, ...events.map((e) => e.since));
    reconcile(this.events, events, (e) => e.index, () => new Step().element, (element, e) => element.show(e, longest, this.currency));
    setText(this.source, `Times are those of the records, UTC. Source: ${order.source}.`);
    if (order.state !== "CREATED" && this.decided) {
      const took = (order.stages[order.state] ?? order.changed) - order.created;
      this.decided(`Order ${order.id} is ${order.state}${order.reasons.length ? `: ${order.reasons.join("; ")}` : ` after ${duration(took)}`}.`);
      this.decided = null;
    }
  }
}

class Step {
  constructor() {
    const title = h("span", { class: "title" }, "");
    const detail = h("span", { class: "detail" }, "");
    const after = h("span", { class: "after number" }, "");
    const at = h("time", { class: "number" }, "");
    const why = h("span", { class: "detail" }, "");
    const element = h("li", {}, h("span", { class: "knot", "aria-hidden": "true" }), h("div", { class: "text" }, title, detail, why), h("div", { class: "when" }, after, at));
    element.show = ({ event, after: passed, since }, longest, currency) => {
      const verdict = event.stage === "VERDICT";
      setText(title, verdict ? `${CHECKS[event.check] ?? event.check}: ${event.result}` : WORDS[event.stage] ?? event.stage);
      const details = [event.amount !== undefined && event.amount !== null ? `${amount(Number(event.amount))} ${event.currency ?? currency}` : null, event.email, event.reason, event.attempt ? `attempt ${event.attempt}` : null];
      const text = details.filter(Boolean).join(" · ");
      setText(detail, text);
      detail.hidden = !text;
      setText(why, event.explanation ?? "");
      why.hidden = !event.explanation;
      setText(after, passed <= 0 ? "0 ms" : `+${duration(passed)}`);
      setText(at, clock(event.at));
      setAttribute(at, "datetime", new Date(event.at).toISOString());
      const bad = ["FAILED", "CHECK_IN_REJECTED", "DEAD_LETTER", "EMAIL_REJECTED"].includes(event.stage) || (verdict && event.result !== "PASS");
      const good = ["VALIDATED", "SHIPPED"].includes(event.stage);
      setAttribute(element, "data-tone", bad ? "bad" : good ? "good" : null);
      setAttribute(element, "data-slow", since > 1000 && since >= longest / 2 ? "true" : null);
    };
    this.element = element;
  }
}

customElements.define("board-order", BoardOrder);
