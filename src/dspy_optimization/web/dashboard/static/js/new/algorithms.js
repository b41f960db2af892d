// By which algorithms, with their options as the installed ones describe them.

import { el } from "../dom.js";

export function algorithmCards(algorithms, earlier) {
  const given = new Map((earlier?.algorithms ?? []).map((one) => (typeof one === "string" ? [one, {}] : Object.entries(one)[0])));
  const isAuto = given.size === 0;
  return el("fieldset", { class: "card", "data-field": "algorithms" },
    el("legend", {}, "4. By which algorithms"),
    el("label", { class: "check" }, el("input", { type: "checkbox", id: "auto", checked: isAuto }), "auto: what fits the agent, the examples and the caps"),
    el("p", { class: "hint" }, "Several share one budget; the better ones get more of it."),
    el("div", { class: "choices" }, algorithms.map((one) => card(one, given.get(one.name)))));
}

function card(one, given) {
  return el("div", { class: "choice", "data-algorithm": one.name },
    el("label", { class: "check" }, el("input", { type: "checkbox", "data-choose": one.name, checked: given !== undefined, onchange: (event) => event.target.checked && (document.getElementById("auto").checked = false) }), el("b", {}, one.name)),
    el("small", { class: "muted" }, one.description, one.needs.length ? `; needs ${one.needs.join(", ")}` : ""),
    one.objectives_supported === WEIGHED ? null : el("small", { class: "muted" }, `Objectives: ${one.objectives_supported}.`),
    isOurs(one) ? null : el("small", { class: "muted", "data-source": one.source }, `From ${one.source}${one.version ? ` ${one.version}` : ""}${one.custom ? ", registered here" : ""}.`),
    el("details", { open: given !== undefined && Object.keys(given).length > 0 },
      el("summary", {}, el("small", {}, `${one.options.length} options`)),
      el("div", { class: "stack" }, one.options.map((option) => field(one.name, option, given?.[option.name])))));
}

const WEIGHED = "any number, weighed into one score"; // what most do, and what needs no saying
const isOurs = (one) => !one.custom && one.source === "dspy-optimization";

function field(algorithm, option, given) {
  const id = `${algorithm}-${option.name}`;
  const isGroup = Boolean(severalOf(option));
  return el("div", { class: "field" },
    isGroup ? el("span", { class: "label", id: `${id}-label` }, option.name) : el("label", { for: id }, option.name),
    control(id, algorithm, option, given),
    el("small", {}, option.description));
}

function control(id, algorithm, option, given) {
  const common = { id, "data-option": option.name, "data-type": option.type, "data-field": `algorithms.${algorithm}.${option.name}` };
  const several = severalOf(option);
  if (several) {
    const chosen = given ?? option.default ?? [];
    return el("div", { ...common, role: "group", "aria-labelledby": `${id}-label`, class: "row", "data-default": JSON.stringify(option.default ?? []) },
      several.map((name) => el("label", { class: "check" }, el("input", { type: "checkbox", value: name, checked: chosen.includes(name) }), name)));
  }
  if (isJson(option)) {
    return el("textarea", { ...common, class: "short", spellcheck: "false", placeholder: option.default === null ? "not given" : `${JSON.stringify(option.default)} (default)`, value: given === undefined ? "" : JSON.stringify(given, null, 1) });
  }
  const choices = /^one of (.*?)( or null)?$/.exec(option.type);
  const unset = option.default === null ? "not given" : `${option.default} (default)`;
  if (choices) return el("select", common, el("option", { value: "" }, unset), [...choices[1].matchAll(/'([^']*)'/g)].map(([, name]) => el("option", { value: JSON.stringify(name), selected: given === name }, name)));
  if (option.type === "bool") return el("select", common, el("option", { value: "" }, unset), ["true", "false"].map((word) => el("option", { value: word, selected: String(given) === word }, word)));
  const isNumber = /^(int|float)/.test(option.type);
  return el("input", { ...common, type: isNumber ? "number" : "text", step: option.type.startsWith("int") ? "1" : "any", placeholder: unset, value: given ?? null });
}

// A list of choices is some of them; another list, or a mapping, is written as JSON.
const severalOf = (option) => (option.type.startsWith("list of one of ") ? [...option.type.matchAll(/'([^']*)'/g)].map(([, name]) => name) : null);
const isJson = (option) => /^(list of|mapping)/.test(option.type);

function read(node, algorithm, FieldError) {
  if (node.matches("[role=group]")) {
    const chosen = [...node.querySelectorAll(":checked")].map((one) => one.value);
    return JSON.stringify([...chosen].sort()) === JSON.stringify(JSON.parse(node.dataset.default).sort()) ? undefined : chosen;
  }
  const text = node.value.trim();
  if (text === "") return undefined;
  if (node.nodeName !== "TEXTAREA") return node.nodeName === "SELECT" ? JSON.parse(text) : node.type === "number" ? Number(text) : text;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new FieldError(`algorithms.${algorithm}.${node.dataset.option}`, `No JSON: ${error.message}`);
  }
}

export function chosenAlgorithms(form, FieldError) {
  if (form.querySelector("#auto").checked) return ["auto"];
  const found = [...form.querySelectorAll("[data-choose]:checked")].map((box) => {
    const options = {};
    for (const node of box.closest(".choice").querySelectorAll("[data-option]")) {
      const value = read(node, box.dataset.choose, FieldError);
      if (value !== undefined) options[node.dataset.option] = value;
    }
    return Object.keys(options).length ? { [box.dataset.choose]: options } : box.dataset.choose;
  });
  if (!found.length) throw new FieldError("algorithms", "Choose at least one, or auto.");
  return found;
}
