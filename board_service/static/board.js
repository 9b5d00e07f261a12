// Connects the board to its feed, and its parts with each other.

import "./flow.js";
import "./orders.js";
import "./order.js";
import "./form.js";
import "./shop.js";
import "./operation.js";
import { count, duration, setText } from "./dom.js";

const RETRY_MS = 2000;
const SILENT_MS = 4000;
const HIDDEN_MS = 20_000;

const part = (name) => document.querySelector(`board-${name}`);
const parts = Object.fromEntries(["flow", "orders", "form", "order", "stock", "sessions", "workers", "backlog", "dead-letters"].map((name) => [name, part(name)]));
const connection = document.getElementById("connection");
const connectionText = document.getElementById("connection-text");
const banner = document.getElementById("banner");
const sampled = document.getElementById("sampled");
const announcer = document.getElementById("announce");

let stream = null;
let heard = 0;
let currency = "";
let flow = null;
let skew = 0;

/** The time of the server. */
const now = () => Date.now() + skew;

function announce(text) {
  setText(announcer, text);
}

function showConnection(state, text) {
  if (connection.dataset.state !== state) connection.dataset.state = state;
  setText(connectionText, text);
}

const HANDLERS = {
  about(about) {
    currency = about.currency;
    setText(document.getElementById("worker"), about.url.replace(/^https?:\/\//, ""));
  },
  flow(figures) {
    flow = figures;
    skew = figures.at - Date.now();
    parts.flow.update(figures);
    parts.orders.tick(now);
    showProblems(figures);
    describeSample(figures);
  },
  orders: (orders) => parts.orders.update(orders, now),
  stock(stock) {
    parts.stock.update(stock);
    parts.form.offer(stock.rows.map((row) => row.product).sort());
  },
  sessions: (sessions) => parts.sessions.update(sessions, now(), currency),
  deadletters: (letters) => parts["dead-letters"].update(letters, now()),
  workers: (workers) => parts.workers.update(workers),
  backlog(backlog) {
    parts.backlog.update(backlog);
    parts.flow.backlog(backlog);
  },
};

function connect() {
  stream?.close();
  const own = new EventSource("board/events");
  stream = own;
  for (const [name, handle] of Object.entries(HANDLERS)) {
    own.addEventListener(name, (event) => {
      if (stream !== own) return;
      heard = Date.now();
      handle(JSON.parse(event.data));
    });
  }
  own.addEventListener("open", () => { heard = Date.now(); });
  own.addEventListener("error", () => {
    if (stream !== own) return;
    showConnection("away", "Reconnecting");
    if (own.readyState === EventSource.CLOSED) setTimeout(() => { if (stream === own) connect(); }, RETRY_MS);
  });
}

/** Says what is wrong, and since when figures are old. */
function showProblems(figures) {
  showConnection(figures.unavailable ? "away" : "live", figures.unavailable ? "Kafka is away" : "Live");
  const text = figures.unavailable ? `The figures are old: ${figures.unavailable}.` : "";
  setText(banner, text);
  banner.hidden = !text;
}

function describeSample(figures) {
  const all = figures.share === 1;
  const part = all ? "Every order is counted." : `Sampled: one of ${count(Math.round(1 / figures.share))} orders is read, rates are scaled up; lists and timelines show this part of the orders only.`;
  const since = Math.min(now() - figures.since, 600_000);
  setText(sampled, `${part} Read from the topics for ${since < 600_000 ? duration(since) : "over 10 min"}; updated ${all ? "twice" : "once"} a second; at most the newest 60 orders of each list are shown.`);
}

setInterval(() => {
  if (stream && heard && Date.now() - heard > SILENT_MS) showConnection("away", `No news for ${duration(Date.now() - heard)}`);
}, 1000);

// A hidden page costs the server nothing.
let hiding = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => {
      stream?.close();
      stream = null;
      heard = 0;
    }, HIDDEN_MS);
  } else if (stream === null) {
    connect();
  }
});

// The order that is shown is in the address: it can be linked, and the browser's Back works.
function chosen() {
  const found = new URLSearchParams(location.hash.slice(1)).get("order");
  return found || null;
}

function showOrder(decided = null) {
  const id = chosen();
  parts.orders.mark(id);
  parts.order.follow(id, currency, decided);
}

function choose(id, decided = null) {
  const hash = id ? `#${new URLSearchParams({ order: id })}` : "";
  history.pushState(null, "", location.pathname + location.search + hash);
  showOrder(decided);
}

document.addEventListener("order", (event) => {
  choose(event.detail);
  if (event.detail) reveal();
});
document.addEventListener("placed", (event) => {
  announce(`Order ${event.detail} is placed.`);
  choose(event.detail, announce);
  reveal();
});
window.addEventListener("popstate", () => showOrder());
document.addEventListener("keydown", (event) => {
  // In the search, Escape empties the field first, as browsers do.
  if (event.key === "Escape" && chosen() && !(event.target.type === "search" && event.target.value)) choose(null);
});

/** On a narrow screen the order is elsewhere: moves there. */
function reveal() {
  if (matchMedia("(max-width: 1099px)").matches) parts.order.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

const toggle = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
const showTheme = () => setText(toggle, theme() === "dark" ? "Light" : "Dark");
toggle.addEventListener("click", () => {
  const next = theme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
  showTheme();
});
dark.addEventListener("change", showTheme);

showTheme();
showOrder();
connect();
