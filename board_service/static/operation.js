// Workers with partitions and standby replicas, backlog of consumer groups, and dead letters.

import { ago, count, duration, h, Panel, reconcile, setAttribute, setText } from "./dom.js";

const COPIED_MS = 2000;

class BoardWorkers extends Panel {
  connectedCallback() {
    if (this.head) return;
    this.build("Workers", "workers-title", "Asking the consumer groups …");
    this.list = h("ul", { class: "items" });
    this.append(this.list, this.nothing);
  }

  update(workers) {
    const ready = workers.rows.filter((worker) => worker.ready).length;
    this.nothing.hidden = workers.rows.length > 0;
    setText(this.head.note, workers.rows.length ? `${count(ready)} of ${count(workers.rows.length)} ready` : "");
    reconcile(this.list, workers.rows, (worker) => worker.url, () => {
      const state = h("span", { class: "state" });
      const name = h("span", { class: "label" });
      const services = h("p", { class: "services" });
      const facts = h("dl", { class: "pairs" });
      const problems = h("ul", { class: "reasons" });
      const cell = (term) => {
        const value = h("dd", { class: "number" });
        facts.append(h("div", {}, h("dt", {}, term), value));
        return value;
      };
      const owns = cell("Owns partitions");
      const standby = cell("Standby of");
      const lag = cell("Standby lag");
      const element = h("li", {}, h("div", { class: "line" }, name, state), facts, services, problems);
      element.show = (worker) => {
        setText(name, worker.url.replace(/^https?:\/\//, "") + (worker.own ? " (this one)" : ""));
        setText(state, !worker.answers ? "✕ no answer" : worker.ready ? "✓ ready" : "… not ready");
        setAttribute(state, "data-tone", !worker.answers ? "bad" : worker.ready ? "good" : "late");
        const replicas = Object.entries(worker.standby ?? {});
        setText(owns, worker.answers ? ranges(worker.partitions) : "–");
        setText(standby, worker.answers ? ranges(replicas.map(([p]) => Number(p))) : "–");
        const behind = replicas.reduce((sum, [, records]) => sum + records, 0);
        setText(lag, replicas.length ? `${count(behind)} ${behind === 1 ? "record" : "records"}` : "–");
        setText(services, worker.services.join(" · "));
        reconcile(problems, (worker.problems ?? []).map((text) => ({ text })), (p) => p.text, () => h("li", {}), (li, p) => setText(li, p.text));
        problems.hidden = !(worker.problems ?? []).length;
      };
      return element;
    }, (element, worker) => element.show(worker));
  }
}

class BoardBacklog extends Panel {
  connectedCallback() {
    if (this.head) return;
    this.build("Backlog", "backlog-title", "Asking the consumer groups …");
    this.body = h("tbody");
    this.table = h("table", {}, h("caption", { class: "hidden" }, "Topics with a backlog, the oldest first"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Topic"), h("th", { scope: "col", class: "right" }, "Waits for"), h("th", { scope: "col", class: "right" }, "Records"))), this.body);
    this.append(h("div", { class: "scroller short", tabindex: "0", role: "group", "aria-label": "Backlog" }, this.table, this.nothing));
  }

  update(backlog) {
    this.table.hidden = backlog.rows.length === 0;
    this.nothing.hidden = backlog.rows.length > 0;
    setText(this.nothing, backlog.unavailable ? `The broker does not tell: ${backlog.unavailable}`
      : backlog.topics ? "Everything is worked off, within five seconds." : "No consumer group has committed anything yet.");
    setText(this.head.note, backlog.topics ? `${count(backlog.behind)} of ${count(backlog.topics)} topics behind` : "");
    reconcile(this.body, backlog.rows, (row) => `${row.group} ${row.topic}`, () => {
      const topic = h("span", {});
      const group = h("span", { class: "note" });
      const cells = [h("th", { scope: "row" }, topic, group), h("td", { class: "right number" }), h("td", { class: "right number" })];
      const element = h("tr", { "data-tone": "late" }, ...cells);
      element.show = (row) => {
        setText(topic, row.topic);
        setText(group, row.group.split("+").join(" · "));
        setAttribute(group, "title", row.group);
        setText(cells[1], `${row.longer ? "over " : ""}${duration(row.seconds * 1000)}`);
        setText(cells[2], count(row.records));
      };
      return element;
    }, (element, row) => element.show(row));
  }
}

class BoardDeadLetters extends Panel {
  connectedCallback() {
    if (this.head) return;
    this.build("Dead letters", "letters-title", "Reading the dead letters …");
    this.list = h("ul", { class: "items letters" });
    this.append(this.list, this.nothing);
  }

  update(letters, now) {
    this.nothing.hidden = letters.rows.length > 0;
    setText(this.nothing, letters.read ? "None. Every message could be processed, or was redriven." : "Reading the dead letters …");
    setText(this.head.note, letters.total ? `${count(letters.total)} of ${count(letters.kinds)} kinds${letters.kinds > letters.rows.length ? `, the newest ${letters.rows.length} shown` : ""}` : "");
    reconcile(this.list, letters.rows, (row) => `${row.topic} ${row.service} ${row.command}`, () => {
      const title = h("span", { class: "label" });
      const number = h("span", { class: "number" });
      const cause = h("p", { class: "cause" });
      const command = h("code", {});
      const copy = h("button", { type: "button", class: "quiet", onclick: () => this.copy(command.textContent, copy) }, "Copy");
      const element = h("li", {}, h("div", { class: "line" }, title, number), cause, h("div", { class: "command" }, command, copy));
      element.show = (row) => {
        setText(title, `${row.topic} · ${row.service}`);
        setText(number, `${count(row.count)} ×, last ${ago(Math.max(0, now - row.last))}${now - row.last >= 1000 ? " ago" : ""}`);
        setText(cause, row.cause);
        setText(command, row.command);
        setAttribute(copy, "aria-label", `Copy the command that redrives ${row.topic}, ${row.service}`);
      };
      return element;
    }, (element, row) => element.show(row));
  }

  async copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
      setText(button, "Copied");
    } catch {
      setText(button, "Select it");
    }
    setTimeout(() => setText(button, "Copy"), COPIED_MS);
  }
}

/** Numbers with ranges: 0–3, 7. */
function ranges(numbers) {
  const parts = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = parts.at(-1);
    if (last && number === last[1] + 1) last[1] = number;
    else parts.push([number, number]);
  }
  return parts.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ") || "none";
}

customElements.define("board-workers", BoardWorkers);
customElements.define("board-backlog", BoardBacklog);
customElements.define("board-dead-letters", BoardDeadLetters);
