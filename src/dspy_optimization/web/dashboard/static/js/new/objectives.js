// By which measure: objectives, each a metric with what it is wanted for.

import { el, on } from "../dom.js";

export function objectiveRows(metrics, earlier, policy) {
  const list = el("div", { class: "stack", id: "objectives", "data-own": "objectives" });
  const add = (given = {}) => list.append(row(metrics, given, earlier?.metrics));
  for (const one of earlier?.objectives ?? [{}]) add(one);
  number(list);
  on(list, "click", "[data-remove]", (button) => {
    if (list.children.length > 1) button.closest(".objective").remove();
    number(list);
    list.dispatchEvent(new Event("change", { bubbles: true }));
  });
  return el("fieldset", { class: "card" },
    el("legend", {}, "3. By which measure"),
    el("p", { class: "hint" }, "The first objective decides the verdict. A guardrail must not get worse. With two or more to be improved you see the front: who is beaten by nobody, and what one costs the other."),
    list,
    el("div", {}, el("button", {
      type: "button", class: "small",
      onclick: () => {
        add();
        number(list);
        list.dispatchEvent(new Event("change", { bubbles: true }));
      },
    }, "Add an objective")),
    policy);
}

function number(list) {
  [...list.children].forEach((one, place) => {
    for (const node of one.querySelectorAll("[data-name]")) node.dataset.field = `objectives.${place}.${node.dataset.name}${place === 0 && node.dataset.name === "metric" ? " objectives metrics" : ""}`;
  });
}

function row(metrics, given, specifications) {
  const options = specifications?.find((one) => (one.name ?? one.type) === given.metric);
  const rest = options ? Object.fromEntries(Object.entries(options).filter(([name]) => name !== "type" && name !== "name")) : {};
  const labelled = (label, control) => el("label", { class: "field" }, el("span", {}, label), control);
  const type = options?.type ?? given.metric ?? "exact_match";
  return el("div", { class: "objective" },
    labelled("Metric", el("select", { "data-name": "metric" }, metrics.map((one) => el("option", { value: one.name, title: one.description, selected: one.name === type }, one.name)))),
    labelled("Direction", el("select", { "data-name": "direction" }, [["", "as the metric says"], ["maximize", "more is better"], ["minimize", "less is better"]].map(([value, label]) => el("option", { value, selected: value === (given.direction ?? "") }, label)))),
    labelled("Weight", el("input", { type: "number", step: "any", min: "0", "data-name": "weight", placeholder: "1", value: given.weight ?? null })),
    labelled("Target", el("input", { type: "number", step: "any", "data-name": "target_value", placeholder: "none", value: given.target_value ?? null })),
    labelled("Margin", el("input", { type: "number", step: "any", "data-name": "margin", placeholder: "default", value: given.margin ?? null })),
    labelled("Options (JSON)", el("input", { "data-name": "options", placeholder: '{"tolerance": 0.1}', value: Object.keys(rest).length ? JSON.stringify(rest) : null })),
    el("label", { class: "check" }, el("input", { type: "checkbox", "data-name": "guardrail", checked: given.guardrail ?? false }), "guardrail"),
    el("button", { type: "button", class: "small plain", "data-remove": true, "aria-label": "Remove this objective" }, "Remove"));
}

const rows = (form) => [...form.querySelectorAll(".objective")].map((node) => Object.fromEntries([...node.querySelectorAll("[data-name]")].map((one) => [one.dataset.name, one.type === "checkbox" ? one.checked : one.value.trim()])));

export function readObjectives(form) {
  return rows(form).map((one) => {
    const objective = { metric: one.metric };
    if (one.direction) objective.direction = one.direction;
    for (const name of ["weight", "target_value", "margin"]) if (one[name] !== "") objective[name] = Number(one[name]);
    if (one.guardrail) objective.guardrail = true;
    return objective;
  });
}

// Metrics that need to be told more than their name.
export function readMetrics(form, FieldError) {
  return rows(form).flatMap((one, place) => {
    if (!one.options) return [];
    try {
      return [{ type: one.metric, ...JSON.parse(one.options) }];
    } catch (error) {
      throw new FieldError(`objectives.${place}.options`, `No JSON: ${error.message}`);
    }
  });
}
