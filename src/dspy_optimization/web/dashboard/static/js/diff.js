// Two texts in one: words taken out are struck through, words put in are underlined.

import { el } from "./dom.js";
import { pairs, tag } from "./parts.js";

export function diffView(diff) {
  const changed = diff.components.filter((one) => one.instructions_changed || one.demos_added.length || one.demos_removed.length || one.demos_reordered || one.settings.length);
  const same = diff.components.filter((one) => !changed.includes(one));
  return el("div", { class: "stack" },
    changed.length ? null : el("p", { class: "muted" }, "Both are the same."),
    changed.map(component),
    same.length && changed.length ? el("p", { class: "hint" }, `Unchanged: ${same.map((one) => one.component).join(", ")}.`) : null);
}

function component(one) {
  return el("div", { class: "stack" },
    el("div", { class: "row" },
      el("h3", {}, one.component),
      one.instructions_changed ? tag("info", "✎", "instructions changed") : tag("", "=", "instructions unchanged"),
      one.demos_added.length ? tag("good", "+", `${one.demos_added.length} demos added`) : null,
      one.demos_removed.length ? tag("bad", "−", `${one.demos_removed.length} demos removed`) : null,
      one.demos_kept ? tag("", "=", `${one.demos_kept} demos kept`) : null,
      one.demos_reordered ? tag("info", "⇅", "demos reordered") : null,
      one.settings.map((setting) => tag("info", "⚙", `${setting.name}: ${setting.from} → ${setting.to}`))),
    one.words.length ? el("div", { class: "words" }, one.words.map(piece)) : null,
    one.demos_removed.map((demo) => demoView(demo, "removed")),
    one.demos_added.map((demo) => demoView(demo, "added")));
}

function piece({ edit, text }) {
  if (edit === "added") return el("ins", {}, text);
  if (edit === "removed") return el("del", {}, text);
  return text;
}

export function demoView(demo, fate = "") {
  return el("div", { class: `demo ${fate}` }, fate ? el("small", { class: fate === "added" ? "good-ink" : "bad-ink" }, fate === "added" ? "+ demo added" : "− demo removed") : null, pairs(demo));
}
