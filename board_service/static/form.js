// Places an order, and shows its way.

import { h, heading, setText } from "./dom.js";

const FIELDS = [
  ["product", "Product", { type: "text", value: "mug", list: "products", maxlength: "256", required: true, autocomplete: "off" }],
  ["quantity", "Quantity", { type: "number", value: "2", step: "1", required: true, inputmode: "numeric" }],
  ["price", "Unit price", { type: "number", value: "12.00", step: "0.0001", required: true, inputmode: "decimal" }],
  ["customerId", "Customer", { type: "number", value: "1", step: "1", required: true, inputmode: "numeric" }],
];

class BoardForm extends HTMLElement {
  connectedCallback() {
    if (this.form) return;
    this.setAttribute("role", "region");
    this.setAttribute("aria-labelledby", "form-title");
    const head = heading("Place an order", "form-title");
    this.inputs = {};
    this.errors = {};
    this.products = h("datalist", { id: "products" });
    const fields = FIELDS.map(([name, label, attributes]) => {
      this.inputs[name] = h("input", { id: `field-${name}`, name, "aria-describedby": `error-${name}`, ...attributes });
      this.errors[name] = h("span", { class: "error", id: `error-${name}` }, "");
      return h("p", { class: "field" }, h("label", { for: `field-${name}` }, label), this.inputs[name], this.errors[name]);
    });
    this.button = h("button", { type: "submit", class: "primary" }, "Place order");
    this.said = h("p", { class: "said", role: "alert" }, "");
    this.form = h("form", { novalidate: true, onsubmit: (event) => this.place(event) }, ...fields, this.products, h("p", { class: "actions" }, this.button, this.said));
    this.append(head.element, this.form);
  }

  /** Offers products for completion. */
  offer(products) {
    const names = products.slice(0, 60);
    const key = names.join("\n");
    if (key === this.offered) return;
    this.offered = key;
    this.products.replaceChildren(...names.map((value) => h("option", { value })));
  }

  async place(event) {
    event.preventDefault();
    this.clear();
    const order = { product: this.inputs.product.value.normalize("NFC") };
    for (const name of ["quantity", "price", "customerId"]) {
      const text = this.inputs[name].value;
      if (text === "" || Number.isNaN(Number(text))) return this.fail(name, "must be a number");
      order[name] = Number(text);
    }
    if (!order.product) return this.fail("product", "must not be empty");
    this.button.disabled = true;
    try {
      const response = await fetch("board/orders", {
        method: "POST",
        headers: { "Content-Type": "application/json", "Idempotency-Key": key() },
        body: JSON.stringify(order),
      });
      const answer = await response.json();
      if (response.ok) this.dispatchEvent(new CustomEvent("placed", { detail: answer.id, bubbles: true }));
      else this.explain(answer, response.status);
    } catch {
      setText(this.said, "The server does not answer. The order may have been placed.");
    } finally {
      this.button.disabled = false;
    }
  }

  explain(problem, status) {
    const known = (problem.errors ?? []).filter((error) => this.errors[error.name]);
    for (const error of known) this.fail(error.name, error.reason);
    if (!known.length) setText(this.said, problem.detail ?? `The order was refused with status ${status}.`);
  }

  fail(name, reason) {
    setText(this.errors[name], reason);
    this.inputs[name].setAttribute("aria-invalid", "true");
    this.inputs[name].focus();
  }

  clear() {
    setText(this.said, "");
    for (const [name, input] of Object.entries(this.inputs)) {
      setText(this.errors[name], "");
      input.removeAttribute("aria-invalid");
    }
  }
}

/** A key that makes the request idempotent: a repetition by the browser places no second order. */
function key() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

customElements.define("board-form", BoardForm);
