// One dataset: its splits, examples that are not sealed, and what it can prove for an agent.

import { all, get, post } from "../api.js";
import { byId, el, on, render } from "../dom.js";
import { count, score, when } from "../format.js";
import { empty, failure, notice, pairs, tag } from "../parts.js";
import { link, needs } from "../who.js";

const id = document.body.dataset.subject;
const path = `datasets/${encodeURIComponent(id)}`;
const shown = { split: "train", items: [], next: null };
const SEVERITY = { error: ["bad", "✕"], warning: ["unsure", "!"] };

async function load() {
  try {
    const one = await get(path);
    document.title = `${one.name} · DSPy Optimization`;
    byId("name").textContent = one.name;
    byId("actions").replaceChildren(link("run", { class: "button primary", href: `/new?dataset=${encodeURIComponent(id)}` }, "Optimize with it"));
    const total = one.n_train + one.n_val + one.n_test;
    const part = (name, size, text) => el("span", { class: name, style: { flex: `${Math.max(size / total, 0.05)}` } }, `${text} ${count(size)}`);
    render(byId("dataset"),
      el("section", { class: "card", "aria-label": "Splits" },
        el("header", {}, el("h2", {}, `${count(total)} examples`), el("p", {}, `split with seed ${one.seed}, added ${when(one.created_at)}`)),
        el("div", { class: "splits", role: "img", "aria-label": `train ${one.n_train}, val ${one.n_val}, test ${one.n_test}` }, part("train", one.n_train, "train"), part("val", one.n_val, "val"), part("test", one.n_test, "test")),
        el("p", { class: "hint" }, "Algorithms learn from train, candidates are compared on val, and the verdict comes from test, which nobody sees: not here, not in reports, not in the API.")));
    await Promise.all([check(), choose(new URLSearchParams(location.search).get("split") === "val" ? "val" : "train")]);
  } catch (problem) {
    render(byId("dataset"), el("div", { class: "card" }, failure(problem, load)));
  }
}

async function check() {
  const agents = await all("agents");
  const { items: metrics } = await get("metrics/available");
  const place = byId("check-card");
  place.hidden = false;
  if (!agents.length) {
    render(place, el("h2", {}, "What it can prove"), el("p", { class: "muted" }, "Register an agent to check this dataset for it."));
    return;
  }
  render(place,
    el("h2", {}, "What it can prove"),
    el("form", { class: "grid-fields", id: "check" },
      el("div", { class: "field" }, el("label", { for: "agent" }, "For the agent"), el("select", { id: "agent" }, agents.map((one) => el("option", { value: one.name }, one.name)))),
      el("div", { class: "field" }, el("label", { for: "metric" }, "By the metric"), el("select", { id: "metric" }, metrics.map((one) => el("option", { value: one.name }, one.name)))),
      el("div", { class: "field" }, el("span", { class: "label" }, "Costs nothing"), el("button", { ...needs("run") }, "Check"))),
    el("div", { id: "checked", role: "status", class: "stack", "data-own": "checked" }));
}

on(byId("check-card"), "submit", "form", async (_form, event) => {
  event.preventDefault();
  const place = byId("checked");
  try {
    const found = await post("datasets/check", { dataset: { id }, target: { id: byId("agent").value }, objectives: [{ metric: byId("metric").value }] });
    place.replaceChildren(
      notice(found.usable ? "good" : "bad", found.usable ? "✓ It can be used" : "✕ It cannot be used so", found.sentence),
      ...(found.detectable_gain === null ? [] : [el("p", { class: "hint" }, `The smallest gain its test split can usually show: ${score(found.detectable_gain)}.`)]),
      ...found.findings.map((one) => el("div", { class: "row" }, tag(...(SEVERITY[one.severity] ?? ["info", "i"]), one.severity), el("span", { class: "break" }, one.message))));
  } catch (problem) {
    place.replaceChildren(notice("bad", problem.title ?? "It did not work", problem.message));
  }
});

async function choose(split) {
  const page = await get(`${path}/examples?split=${split}&limit=25`);
  Object.assign(shown, { split, items: page.items, next: page.next_cursor });
  draw();
}

async function more() {
  const page = await get(`${path}/examples?split=${shown.split}&limit=50&cursor=${encodeURIComponent(shown.next)}`);
  shown.items.push(...page.items);
  shown.next = page.next_cursor;
  draw();
}

function draw() {
  const place = byId("examples-card");
  place.hidden = false;
  render(place,
    el("header", {}, el("h2", {}, "Examples"),
      el("div", { class: "segments", role: "group", "aria-label": "Split" }, ["train", "val"].map((one) => el("button", { type: "button", "data-split": one, "aria-pressed": String(one === shown.split) }, one)))),
    shown.items.length
      ? shown.items.map((one) => el("article", { class: "example", "data-key": one.id },
          el("div", { class: "sides" },
            el("div", { class: "side-box" }, el("b", {}, "Inputs"), pairs(one.inputs)),
            el("div", { class: "side-box" }, el("b", {}, "Expected"), pairs(one.expected))),
          one.cluster ? el("small", { class: "muted" }, `cluster ${one.cluster}`) : null))
      : empty("This split is empty"),
    shown.next ? el("div", { class: "pager" }, el("span", {}, `${count(shown.items.length)} shown`), el("button", { type: "button", "data-more": true }, "Load more")) : null);
}

on(byId("examples-card"), "click", "[data-split]", (button) => {
  history.replaceState(null, "", `?split=${button.dataset.split}`);
  choose(button.dataset.split);
});
on(byId("examples-card"), "click", "[data-more]", more);
await load();
