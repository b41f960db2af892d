// The list. Everything that chooses what it shows is in the address.

import { get } from "../api.js";
import { byId, el, render } from "../dom.js";
import { age, count, money, score } from "../format.js";
import { empty, failure, gainText, intervalBar, progressBar, statusTag, verdictTag } from "../parts.js";
import { calmly, follow } from "../stream.js";
import { link } from "../who.js";

const form = byId("filters");
const place = byId("list");
const COLUMNS = ["Target", "Status", "On val", "Verdict", "Gain on test", "Spent", "Age"];
const heard = new Map();

const wanted = () => new URLSearchParams(location.search);

function fillForm() {
  const query = wanted();
  for (const box of form.querySelectorAll("[name=status]")) box.checked = query.getAll("status").includes(box.value);
  for (const name of ["target", "algorithm", "sort"]) form.elements[name].value = query.get(name) ?? "";
}

function fromForm() {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) query.append(name, value);
  return query;
}

function go(query) {
  history.pushState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
  load();
}

async function load() {
  const query = wanted();
  const asked = String(query);
  query.set("limit", "50");
  try {
    const page = await get(`optimizations?${query}`);
    if (asked === String(wanted())) draw(page);
  } catch (problem) {
    if (problem.status || !place.querySelector("table")) render(place, failure(problem, load));
  }
}

function draw(page) {
  const query = wanted();
  const isFiltered = ["status", "target", "algorithm"].some((name) => query.has(name));
  if (!page.items.length && page.next_cursor) {
    const further = wanted();
    further.set("cursor", page.next_cursor);
    render(place, empty("None on this page", "What ended too long ago is not shown any longer.", el("a", { class: "button", href: `?${further}` }, "Next page")));
    return;
  }
  if (!page.items.length) {
    render(place, isFiltered
      ? empty("None fits", "No optimization has this status, target and algorithm.", el("a", { class: "button", href: "/optimizations" }, "Show all"))
      : empty("Nothing was optimized yet", "Bring an agent, examples and a metric.", link("run", { class: "button primary", href: "/new" }, "Start the first one")));
    return;
  }
  const next = wanted();
  next.set("cursor", page.next_cursor ?? "");
  const first = wanted();
  first.delete("cursor");
  render(place,
    el("div", { class: "scroll" },
      el("table", { class: "table cards" },
        el("caption", { class: "visually-hidden" }, "Optimizations"),
        el("thead", {}, el("tr", {}, COLUMNS.map((label) => el("th", { scope: "col" }, label)))),
        el("tbody", {}, page.items.map(row)))),
    el("div", { class: "pager" },
      el("span", {}, `${page.items.length} on this page`),
      el("span", { class: "row" },
        query.has("cursor") ? el("a", { class: "button small", href: `?${first}` }, "First page") : null,
        page.next_cursor ? el("a", { class: "button small", href: `?${next}`, rel: "next" }, "Next page") : null)));
}

function row(one) {
  const live = heard.get(one.optimization_id) ?? {};
  const isOpen = one.status === "running" || one.status === "queued";
  const progress = Math.max(one.progress, live.progress ?? 0);
  const cells = [
    el("div", {}, el("a", { class: "subject", href: `/optimizations/${one.optimization_id}` }, one.target.id), el("br"), el("small", { class: "muted" }, one.algorithms.join(", "))),
    el("div", { class: "row" }, statusTag(one.status), isOpen ? progressBar(progress, "Progress") : null, isOpen ? el("small", {}, `${Math.round(100 * progress)} %`) : null),
    `${score(one.baseline_score)} → ${score(live.best_score ?? one.best_score)}`,
    one.verdict ? verdictTag(one.verdict) : one.error ? el("span", { class: "muted break" }, one.error.slice(0, 90)) : "–",
    one.confidence_interval
      ? el("div", {}, intervalBar({ value: one.absolute_improvement, interval: one.confidence_interval, verdict: one.verdict }), el("small", { class: "nowrap" }, gainText(one.absolute_improvement, one.confidence_interval)))
      : gainText(one.absolute_improvement, null),
    el("span", {}, `${count(one.lm_calls)} calls`, el("br"), el("small", { class: "muted" }, money(one.cost_usd))),
    age(one.created_at),
  ];
  return el("tr", { "data-key": one.optimization_id }, cells.map((cell, index) => el("td", { "data-label": COLUMNS[index], class: cell === "–" ? "none" : null }, cell)));
}

form.addEventListener("change", () => go(fromForm()));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  go(fromForm());
});
addEventListener("popstate", () => {
  fillForm();
  load();
});

fillForm();
const later = calmly(load, 2500);
await load();
follow("/api/v1/events", {
  refresh: later,
  onMessage: (message) => {
    heard.set(message.optimization_id, message.data);
    later();
    return false;
  },
});
get("algorithms/available").then(({ items }) => {
  form.elements.algorithm.append(...items.map((one) => el("option", { value: one.name }, one.name)));
  fillForm();
});
