// Within which bounds.

import { el } from "../dom.js";
import { needs } from "../who.js";

const NUMBERS = [
  ["max_lm_calls", "Calls at most", "no cap", "All roles together, the proof included."],
  ["max_cost_usd", "Dollars at most", "no cap", "Needs known prices."],
  ["max_optimization_time", "Seconds of work at most", "no cap", ""],
  ["max_tokens", "Tokens at most", "no cap", ""],
  ["min_improvement_threshold", "Smallest gain that matters", "0", "In the unit of the metric."],
  ["seed", "Seed", "0", "Of the search."],
  ["concurrency", "Examples at once", "8", ""],
];

export function constraintFields(earlier) {
  const given = { max_lm_calls: 2000, ...earlier?.constraints };
  const field = (name) => `constraints.${name} ${name}`;
  return el("fieldset", { class: "card" },
    el("legend", {}, "5. Within which bounds"),
    el("div", { class: "grid-fields" },
      NUMBERS.map(([name, label, placeholder, hint]) =>
        el("div", { class: "field" }, el("label", { for: name }, label),
          el("input", { id: name, type: "number", step: "any", min: "0", placeholder, "data-constraint": name, "data-field": field(name), value: given[name] ?? null }),
          hint ? el("small", {}, hint) : null)),
      el("div", { class: "field" }, el("label", { for: "priority" }, "Priority"),
        el("select", { id: "priority", "data-constraint": "priority", "data-usual": "normal", "data-field": field("priority") }, ["normal", "high", "low"].map((one) => el("option", { value: one, selected: one === given.priority, ...(one === "high" ? needs("administer") : {}) }, one)))),
      el("div", { class: "field" }, el("label", { for: "isolation" }, "Isolation"),
        el("select", { id: "isolation", "data-constraint": "isolation", "data-usual": "thread", "data-field": field("isolation") },
          [["thread", "a thread among others"], ["process", "a process of its own"]].map(([value, label]) => el("option", { value, selected: value === given.isolation }, label))),
        el("small", {}, "A process of its own: agents, tools and metrics that crash harm no other optimization.")),
      el("div", { class: "field" }, el("label", { for: "deadline" }, "Deadline"),
        el("input", { id: "deadline", type: "datetime-local", "data-constraint": "deadline", "data-field": field("deadline") }))),
    el("div", { class: "row" },
      el("label", { class: "check" }, el("input", { type: "checkbox", "data-constraint": "requires_gpu", "data-field": field("requires_gpu"), checked: given.requires_gpu ?? false }), "needs a worker with a GPU")));
}

export function readConstraints(form) {
  const found = {};
  for (const node of form.querySelectorAll("[data-constraint]")) {
    const name = node.dataset.constraint;
    if (node.type === "checkbox") node.checked && (found[name] = true);
    else if (node.value === "") continue;
    else if (node.type === "datetime-local") found[name] = new Date(node.value).toISOString();
    else if (node.type === "number") found[name] = Number(node.value);
    else if (node.value !== node.dataset.usual) found[name] = node.value;
  }
  return found;
}
