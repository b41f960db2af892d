// Pieces that stand on several pages.

import { el, svg } from "./dom.js";
import { signed, score } from "./format.js";

const STATUS = {
  queued: ["info", "◷", "queued"],
  running: ["info", "▶", "running"],
  paused: ["unsure", "❙❙", "paused"],
  completed: ["good", "✓", "completed"],
  failed: ["bad", "✕", "failed"],
  cancelled: ["", "■", "cancelled"],
};

const VERDICT = {
  improved: ["good", "▲", "improved", "Better: proven on examples nobody optimized on."],
  no_improvement: ["", "=", "no improvement", "No gain of the size that matters."],
  regressed: ["bad", "▼", "regressed", "Worse than the baseline. Keep the baseline."],
  indecisive: ["unsure", "≈", "indecisive", "The test split cannot tell: the interval holds gains and none."],
  insufficient_data: ["unsure", "…", "insufficient data", "Too few test examples to say anything."],
  no_headroom: ["", "◆", "no headroom", "The baseline leaves nothing to gain."],
};

export const tag = (kind, sign, text, title) => el("span", { class: `tag ${kind}`, title }, sign ? el("span", { class: "sign", "aria-hidden": "true" }, sign) : null, text);

export function statusTag(status) {
  const [kind, sign, text] = STATUS[status] ?? ["", "", status];
  return tag(kind, sign, text);
}

export function verdictTag(verdict) {
  if (!verdict) return tag("", "", "no verdict", "The test split was not opened.");
  const [kind, sign, text, meaning] = VERDICT[verdict] ?? ["", "", verdict, ""];
  return tag(kind, sign, text, meaning);
}

export const verdictKind = (verdict) => VERDICT[verdict]?.[0] ?? "";
export const verdictMeaning = (verdict) => VERDICT[verdict]?.[3] ?? "";

// A gain is never told without its interval.
export function gainText(value, interval) {
  if (value === null || value === undefined) return "–";
  return interval ? `${signed(value)} (${signed(interval[0])} to ${signed(interval[1])})` : `${signed(value)}, no interval`;
}

export function intervalBar({ value, interval, verdict, mde = null, large = false }) {
  if (!interval) return el("span", { class: "muted" }, "–");
  const [low, high] = interval;
  const reach = Math.max(Math.abs(low), Math.abs(high), large && mde ? mde : 0, 1e-6) * (large ? 1.42 : 1.12);
  const least = large || low < 0 ? -reach : -0.18 * reach;
  const most = high > 0 || large ? reach : 0.18 * reach;
  const left = (x) => `${(100 * (x - least)) / (most - least)}%`;
  const width = (from, to) => `${(100 * (to - from)) / (most - least)}%`;
  const mark = (x, text, place) => el("span", { class: `mark ${place}`, style: { left: left(x) } }, text);
  const near = (one, other) => Math.abs(one - other) / (most - least) < 0.26; // on a phone, words would overlap
  return el(
    "div",
    { class: `interval ${verdictKind(verdict)}${large ? " large" : ""}`, role: "img", "aria-label": `Gain ${gainText(value, interval)}; the dashed line is no change` },
    large && mde ? el("span", { class: "grey", style: { left: left(-mde), width: width(-mde, mde) } }) : null,
    el("span", { class: "axis" }),
    el("span", { class: "zero", style: { left: left(0) } }),
    el("span", { class: "span", style: { left: left(low), width: width(low, high) } }),
    el("span", { class: "dot", style: { left: left(value) } }),
    large ? [near(0, low) || near(0, high) ? null : mark(0, "no change", "middle"), mark(low, signed(low), "low"), mark(high, signed(high), "high"), mark(value, signed(value), "top")] : null,
  );
}

export function progressBar(done, label) {
  const share = Math.max(0, Math.min(1, done ?? 0));
  return el(
    "div",
    { class: `bar${done > 1 ? " over" : ""}`, role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.round(100 * share)), "aria-label": label },
    el("i", { style: { width: `${100 * share}%` } }),
  );
}

export const measured = (one) => (one ? (one.low === null || one.high === null ? `${score(one.value)} (n = ${one.n})` : `${score(one.value)} (${score(one.low)} to ${score(one.high)})`) : "–");

export function empty(title, sentence, ...actions) {
  return el(
    "div",
    { class: "empty", "data-state": "empty" },
    svg("svg", { viewBox: "0 0 160 44", "aria-hidden": "true", fill: "none", stroke: "currentColor", "stroke-width": "2", "stroke-linecap": "round" },
      svg("path", { d: "M6 34h148", opacity: "0.35" }), svg("path", { d: "M46 34V8", "stroke-dasharray": "3 4", opacity: "0.5" }),
      svg("path", { d: "M70 20h60M70 14v12M130 14v12" }), svg("circle", { cx: "100", cy: "20", r: "5", fill: "currentColor" })),
    el("h3", {}, title),
    sentence ? el("p", {}, sentence) : null,
    actions.length ? el("div", { class: "actions" }, actions) : null,
  );
}

export function failure(problem, again) {
  const gone = problem.status === 404 || problem.status === 410;
  return el(
    "div",
    { class: "empty", role: "alert", "data-state": gone ? "missing" : "error" },
    el("h3", {}, problem.title ?? "It did not work"),
    el("p", { class: "break" }, problem.detail || problem.message),
    gone ? el("a", { class: "button", href: `/${location.pathname.split("/")[1]}` }, "See what there is") : null,
    again && !gone ? el("button", { type: "button", onclick: again }, "Try again") : null,
  );
}

export const notice = (kind, title, text) => el("div", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : null }, el("b", {}, title), text ? el("span", {}, text) : null);

// A table; on a phone each row becomes a card with the names of the columns beside its values.
export function table({ caption, columns, rows, cards = true }) {
  return el(
    "div",
    { class: "scroll", tabindex: cards ? null : "0", role: cards ? null : "region", "aria-label": cards ? null : caption },
    el(
      "table",
      { class: `table${cards ? " cards" : ""}` },
      el("caption", { class: "visually-hidden" }, caption),
      el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col", class: column.number ? "number" : null }, column.label)))),
      el("tbody", {}, rows.map(({ key, cells }) =>
        el("tr", { "data-key": key }, cells.map((cell, place) => el("td", { "data-label": columns[place].label, class: columns[place].number ? "number" : null }, cell))))),
    ),
  );
}

export function toast(text) {
  for (const old of document.querySelectorAll(".toast")) old.remove();
  const node = el("div", { class: "toast", role: "status" }, text);
  document.body.append(node);
  setTimeout(() => node.remove(), 5000);
}

// Asks before something is done that cannot be taken back, or that takes money.
export function confirm({ title, text, action, danger = false }) {
  return new Promise((resolve) => {
    const dialog = el("dialog", { "aria-labelledby": "confirm-title" },
      el("form", { method: "dialog" },
        el("h2", { id: "confirm-title" }, title), el("p", { class: "muted" }, text),
        el("div", { class: "row" },
          el("button", { value: "yes", class: danger ? "danger" : "primary" }, action),
          el("button", { value: "no", autofocus: true }, "Keep it as it is"))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function copyBlock(title, text) {
  return el("div", { class: "copy" },
    el("div", { class: "row" }, el("h3", {}, title), el("button", { type: "button", class: "small", "data-copy": true, "aria-label": `Copy: ${title}` }, "Copy")),
    el("pre", { class: "code", tabindex: "0" }, text));
}

export function pairs(record) {
  return Object.entries(record).map(([name, value]) => el("div", { class: "pair" }, el("span", {}, name), el("span", {}, written(value))));
}

export const written = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));
