// One agent: its versions, what each says, how any two differ.

import { all, get } from "../api.js";
import { demoView, diffView } from "../diff.js";
import { byId, el, on, render } from "../dom.js";
import { when } from "../format.js";
import { copyBlock, failure, notice, tag } from "../parts.js";
import { link } from "../who.js";

const name = document.body.dataset.subject;
const path = `agents/${encodeURIComponent(name)}`;
const place = byId("agent");
const query = () => new URLSearchParams(location.search);
let versions = [];
let known = [];

async function load() {
  try {
    known = await all(`${path}/versions`, 400);
    versions = known.map((one) => one.version);
    const shown = query().get("version") ?? versions[0];
    const from = query().get("from") ?? versions[versions.indexOf(shown) + 1] ?? null;
    const [agent, diff] = await Promise.all([
      get(`${path}/versions/${encodeURIComponent(shown)}`),
      from && from !== shown ? get(`${path}/diff?from=${encodeURIComponent(from)}&to=${encodeURIComponent(shown)}`).catch((problem) => problem) : null,
    ]);
    draw(agent, from, diff);
  } catch (problem) {
    byId("actions").replaceChildren();
    render(place, el("div", { class: "card" }, failure(problem, load)));
  }
}

function draw(agent, from, diff) {
  byId("actions").replaceChildren(
    link("run", { class: "button primary", href: `/new?agent=${encodeURIComponent(name)}` }, "Optimize"),
    el("a", { class: "button", href: `/optimizations?target=${encodeURIComponent(name)}` }, "Its optimizations"));
  const choose = (id, label, value, withNone) => el("div", { class: "field" }, el("label", { for: id }, label),
    el("select", { id, name: id }, withNone ? el("option", { value: "" }, "none") : null, versions.map((one, index) => el("option", { value: one, selected: one === value }, `${one.slice(0, 12)} · ${when(known[index].created_at)}${index === 0 ? " (newest)" : ""}`))));
  render(place,
    el("section", { class: "card", "aria-label": "Versions" },
      el("header", {}, el("h2", {}, versions.length === 1 ? "One version" : `${versions.length} versions`)),
      el("div", { class: "wide-fields" }, choose("version", "Show", agent.version, false), versions.length > 1 ? choose("from", "Compare with", from, true) : null)),
    diff instanceof Error ? notice("bad", "The two cannot be compared", diff.message) : null,
    diff && !(diff instanceof Error) ? el("section", { class: "card", "aria-label": "Difference" }, el("h2", {}, "Difference"), el("p", { class: "hint mono" }, `${from.slice(0, 10)} → ${agent.version.slice(0, 10)}`), diffView(diff)) : null,
    el("div", { class: "columns two" },
      el("section", { class: "card", "aria-label": "What it says" }, el("h2", {}, "What it says"), ...signatures(agent.config)),
      el("section", { class: "card", "aria-label": "Configuration" }, copyBlock("Configuration", JSON.stringify(agent.config, null, 2)))));
}

function signatures(config) {
  const found = [];
  const look = (value, where) => {
    if (Array.isArray(value)) value.forEach((one, index) => look(one, one?.name ?? `${where} ${index + 1}`));
    else if (value && typeof value === "object") {
      if (value.inputs && value.outputs) found.push([where, value]);
      else for (const [key, one] of Object.entries(value)) look(one, key === "signature" ? where : key);
    }
  };
  look({ ...config, components: undefined }, config.name);
  const fields = (list) => (list ?? []).map((one) => tag("", "", one.type && one.type !== "str" ? `${one.name}: ${one.type}` : one.name, one.description));
  return [
    el("div", { class: "row" }, tag("info", "", config.kind), config.model?.name ? tag("", "", config.model.name) : null),
    ...found.map(([where, one]) => el("div", { class: "stack" }, el("h3", {}, where), el("p", { class: "words" }, one.instructions || "no instructions"), el("div", { class: "row" }, fields(one.inputs), el("span", { "aria-label": "to" }, "→"), fields(one.outputs)))),
    ...learned(config.components),
  ];
}

// What an optimization put in place of the signature's own words.
function learned(components) {
  return Object.entries(components ?? {}).flatMap(([where, one]) => {
    const demos = one.demos ?? [];
    if (!one.instructions && !demos.length) return [];
    return [
      el("hr"),
      el("div", { class: "row" }, el("h3", {}, `Component ${where}`), tag("info", "✎", "set for this version"), one.frozen ? tag("", "", "frozen") : null),
      one.instructions ? el("p", { class: "words" }, one.instructions) : null,
      demos.length ? el("details", {}, el("summary", {}, demos.length === 1 ? "1 demo" : `${demos.length} demos`), el("div", { class: "stack" }, demos.map((demo) => demoView(demo)))) : null,
    ];
  });
}

on(place, "change", "select", () => {
  const next = new URLSearchParams();
  for (const node of place.querySelectorAll("select")) if (node.value) next.set(node.name, node.value);
  history.pushState(null, "", `?${next}`);
  load();
});
addEventListener("popstate", load);
await load();
