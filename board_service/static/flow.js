// The flow of orders through the stages: rates, times, backlog, and a chart of the last two minutes.

import { count, duration, h, heading, rate, setAttribute, setText } from "./dom.js";

const CHECK_NAMES = { FRAUD_CHECK: "Fraud", INVENTORY_CHECK: "Inventory", ORDER_DETAILS_CHECK: "Details" };
const CARDS = [
  ["placed", "Placed"],
  ["checks", "Checked"],
  ["decided", "Decided"],
  ["after", "Under way"],
  ["shipped", "Shipped"],
];
const WIDTH = 1200;
const HEIGHT = 160;

/** The card that works off a topic. */
function cardOf(topic) {
  if (topic === "orders" || topic.includes("-orders-by-")) return "checks";
  if (topic === "order-validations") return "decided";
  if (["payments", "home-checkins", "orders-enriched", "customers"].includes(topic)) return "after";
  return topic === "fulfilments" ? "shipped" : null;
}

class Line {
  constructor(label, tone) {
    this.value = h("span", { class: "number" }, "–");
    this.times = h("span", { class: "times" }, "");
    this.element = h(
      "li", { "data-tone": tone },
      h("span", { class: "label" }, label), this.value, h("span", { class: "unit" }, "/s"), this.times,
    );
  }

  show(number, times) {
    setText(this.value, rate(number ?? 0));
    setText(this.times, times ? `${duration(times.p50)} · ${duration(times.p95)}` : "");
    setAttribute(this.times, "title", times ? `half within ${duration(times.p50)}, 95 % within ${duration(times.p95)}, slowest ${duration(times.max)}` : null);
  }
}

class BoardFlow extends HTMLElement {
  connectedCallback() {
    if (this.cards) return;
    const head = heading("Flow", "flow-title");
    head.note.textContent = "rates over 10 s · p50 and p95 of the last minute";
    this.setAttribute("role", "region");
    this.setAttribute("aria-labelledby", "flow-title");
    this.cards = {};
    this.lines = new Map();
    const list = h("ol", { class: "stages" });
    for (const [name, title] of CARDS) {
      const lines = h("ul", { class: "lines" });
      const foot = h("p", { class: "foot" }, "");
      this.cards[name] = { lines, foot };
      list.append(h("li", { class: "stage" }, h("h3", {}, title), lines, foot));
    }
    this.paths = Object.fromEntries(
      ["CREATED", "VALIDATED", "FAILED"].map((stage) => [stage, h("path", { class: "series", "data-series": stage, d: "" })]),
    );
    this.area = h("path", { class: "area", d: "" });
    this.chart = h(
      "svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": "No figures yet" },
      h("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 }),
      this.area, this.paths.VALIDATED, this.paths.CREATED, this.paths.FAILED,
      h("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
    );
    this.top = h("span", { class: "number" }, "");
    const legend = h(
      "ul", { class: "legend" },
      ...[["CREATED", "placed"], ["VALIDATED", "validated"], ["FAILED", "failed"]].map(
        ([stage, label]) => h("li", { "data-series": stage }, h("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" },
          h("path", { class: "series", "data-series": stage, d: "M1 4h22" })), label),
      ),
    );
    this.append(
      head.element, list,
      h("div", { class: "plot" }, h("div", { class: "scale" }, this.top, h("span", {}, "orders/s")), this.chart,
        h("div", { class: "under" }, h("span", {}, "2 min ago"), legend, h("span", {}, "now"))),
    );
  }

  line(card, key, label, tone) {
    let line = this.lines.get(key);
    if (line === undefined) {
      line = new Line(label, tone);
      this.lines.set(key, line);
      this.cards[card].lines.append(line.element);
    }
    return line;
  }

  update(flow) {
    const { rates, times } = flow;
    this.line("placed", "CREATED", "Orders", "").show(rates.CREATED, null);
    for (const check of [...new Set([...Object.keys(CHECK_NAMES), ...Object.keys(rates).filter((r) => r.includes(" ")).map((r) => r.split(" ")[0])])].slice(0, 8)) {
      const sum = ["PASS", "FAIL", "ERROR"].reduce((total, result) => total + (rates[`${check} ${result}`] ?? 0), 0);
      const label = CHECK_NAMES[check] ?? check.replace(/_CHECK$/, "").replaceAll("_", " ").toLowerCase();
      this.line("checks", check, label, "").show(sum, times[check]);
    }
    this.line("decided", "VALIDATED", "Validated", "good").show(rates.VALIDATED, times.decided);
    this.line("decided", "FAILED", "Failed", "bad").show(rates.FAILED, null);
    this.line("decided", "CANCELLED", "Cancelled", "").show(rates.CANCELLED, null);
    this.line("after", "EMAIL_SENT", "E-mail", "").show(rates.EMAIL_SENT, times.emailed);
    this.line("after", "PAYMENT", "Payment", "").show(rates.PAYMENT, null);
    this.line("after", "CHECK_IN", "Check-in", "").show(rates.CHECK_IN, null);
    this.line("shipped", "SHIPPED", "Orders", "good").show(rates.SHIPPED, times.shipped);
    this.foot("placed", flow.undecided ? `${count(flow.undecided)} undecided, oldest ${duration(flow.oldest)}` : "None undecided",
      flow.undecided && flow.oldest > 5000 ? "late" : "");
    this.draw(flow);
  }

  backlog(backlog) {
    const worst = {};
    for (const row of backlog.rows) {
      const card = cardOf(row.topic);
      if (card && (!worst[card] || row.seconds > worst[card].seconds)) worst[card] = row;
    }
    for (const card of ["checks", "decided", "after", "shipped"]) {
      const row = worst[card];
      const text = row ? `${row.longer ? "over " : ""}${duration(row.seconds * 1000)} behind in ${row.topic}` : "No backlog";
      this.foot(card, backlog.topics ? text : "Backlog unknown", row ? "late" : "");
    }
  }

  foot(card, text, tone) {
    setText(this.cards[card].foot, text);
    setAttribute(this.cards[card].foot, "data-tone", tone);
  }

  draw(flow) {
    const second = Math.floor(flow.at / 1000);
    if (second === this.drawn) return;
    this.drawn = second;
    const series = flow.series;
    const highest = Math.max(1, ...["CREATED", "VALIDATED", "FAILED"].flatMap((stage) => series[stage].map((v) => v ?? 0)));
    const top = nice(highest);
    const x = (index) => ((index / (flow.seconds - 1)) * WIDTH).toFixed(1);
    const y = (value) => (HEIGHT - 1 - (value / top) * (HEIGHT - 8)).toFixed(1);
    for (const [stage, path] of Object.entries(this.paths)) {
      let pen = false;
      const steps = series[stage].map((value, index) => {
        if (value === null) {
          pen = false;
          return "";
        }
        const step = `${pen ? "L" : "M"}${x(index)} ${y(value)}`;
        pen = true;
        return step;
      });
      path.setAttribute("d", steps.join(""));
    }
    const known = series.CREATED.map((value) => value ?? 0);
    this.area.setAttribute("d", `M0 ${HEIGHT}${known.map((v, i) => `L${x(i)} ${y(v)}`).join("")}L${WIDTH} ${HEIGHT}Z`);
    setText(this.top, Number.isInteger(top) ? count(top) : rate(top));
    this.chart.setAttribute("aria-label",
      `Orders per second in the last two minutes: ${rate(flow.rates.CREATED ?? 0)} placed, ${rate(flow.rates.VALIDATED ?? 0)} validated, ` +
      `${rate(flow.rates.FAILED ?? 0)} failed now; at most ${rate(highest)} in a second`);
  }
}

/** The next of the round numbers 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15 … */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

customElements.define("board-flow", BoardFlow);
