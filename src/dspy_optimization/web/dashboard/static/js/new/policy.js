// Which candidate goes to the gate, of those that are beaten by nobody.

import { el } from "../dom.js";

const POLICIES = [
  ["weights", "the best weighted sum of the objectives", "What the algorithms climb too. With one objective: the best in it."],
  ["target_values", "who reaches every target", "Objectives need targets. While nobody reaches all of them: who is nearest."],
  ["lexicographic", "one objective after the other", "The best in the first; of those nearly as good the best in the second, and so on."],
  ["knee", "the knee of the front", "Where giving up a little of one objective stops paying in the others. Needs two that are no guardrails."],
  ["max_cost", "the best that costs at most so much", "The best in the first objective among those below a cap. The cap is on an objective to be minimized, a guardrail too."],
];

export function policyFields(earlier) {
  const given = typeof earlier?.policy === "string" ? { type: earlier.policy } : earlier?.policy ?? { type: "weights" };
  const picked = given.type === "picked" ? [["picked", `the one that was picked: ${given.candidate.slice(0, 12)}`, "A person took it from an earlier optimization."]] : [];
  const chosen = [...POLICIES, ...picked];
  const when = (type, ...children) => el("div", { class: "grid-fields", "data-policy": type, hidden: given.type !== type }, children);
  return el("div", { class: "stack", id: "policy-fields" },
    el("div", { class: "field" }, el("label", { for: "policy" }, "Which candidate goes to the gate"),
      el("select", { id: "policy", "data-field": "policy policy.type" }, chosen.map(([type, label]) => el("option", { value: type, selected: type === given.type }, label))),
      el("small", { id: "policy-hint" }, chosen.find(([type]) => type === given.type)?.[2] ?? "")),
    when("target_values", named("least", "Of those with the least", "", given.least, "any: the best weighted sum")),
    when("lexicographic",
      el("div", { class: "field" }, el("label", { for: "policy-order" }, "Order, the most important one first"),
        el("input", { id: "policy-order", "data-field": "policy.order", autocomplete: "off", spellcheck: "false", value: given.order?.join(", ") ?? null, placeholder: "" })),
      numeric("tolerance", "Nearly as good", "0.02", given.tolerance, "As a share of the baseline: 0.02 is 2 %.")),
    when("max_cost", named("metric", "Cap on", "", given.metric, "the first of cost, latency, tokens, calls"), numeric("at_most", "At most", "0.01", given.at_most, "The mean of one answer, in the unit of the metric.")),
    picked.length ? el("input", { type: "hidden", id: "policy-picked", value: JSON.stringify(given) }) : null);
}

const named = (name, label, hint, value, unset) =>
  el("div", { class: "field" }, el("label", { for: `policy-${name}` }, label),
    el("select", { id: `policy-${name}`, "data-field": `policy.${name}`, "data-unset": unset, "data-minimized": true }, el("option", { value: "" }, unset), value ? el("option", { value, selected: true }, value) : null),
    hint ? el("small", {}, hint) : null);

const numeric = (name, label, placeholder, value, hint) =>
  el("div", { class: "field" }, el("label", { for: `policy-${name}` }, label),
    el("input", { id: `policy-${name}`, type: "number", step: "any", min: "0", "data-field": `policy.${name}`, placeholder, value: value ?? null }),
    el("small", {}, hint));

// Shows the fields of the chosen policy, and the objectives there are now.
export function syncPolicy(form, objectives) {
  const select = form.querySelector("#policy");
  if (!select) return;
  for (const node of form.querySelectorAll("[data-policy]")) node.hidden = node.dataset.policy !== select.value;
  form.querySelector("#policy-hint").textContent = POLICIES.find(([type]) => type === select.value)?.[2] ?? "";
  const goals = objectives.filter((one) => !one.guardrail).map((one) => one.metric);
  form.querySelector("#policy-order").placeholder = goals.join(", ");
  for (const [id, possible] of [["policy-least", goals], ["policy-metric", objectives.map((one) => one.metric)]]) {
    const node = form.querySelector(`#${id}`);
    const before = node.value;
    const names = [...new Set([...possible, ...(before ? [before] : [])])];
    node.replaceChildren(el("option", { value: "" }, node.dataset.unset), ...names.map((name) => el("option", { value: name, selected: name === before }, name)));
  }
}

export function readPolicy(form) {
  const value = (name) => form.querySelector(`#policy-${name}`).value.trim();
  const type = form.querySelector("#policy").value;
  const number = (name) => (value(name) === "" ? {} : { [name]: Number(value(name)) });
  switch (type) {
    case "weights":
      return null;
    case "target_values":
      return { type, ...(value("least") ? { least: value("least") } : {}) };
    case "lexicographic":
      return { type, order: value("order").split(",").map((one) => one.trim()).filter(Boolean), ...number("tolerance") };
    case "max_cost":
      return { type, ...(value("metric") ? { metric: value("metric") } : {}), ...number("at_most") };
    case "picked":
      return JSON.parse(value("picked"));
    default:
      return { type };
  }
}
