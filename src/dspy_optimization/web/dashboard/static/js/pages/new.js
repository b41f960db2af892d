// A new optimization. What it takes is told before it can be started.

import { all, get, post } from "../api.js";
import { byId, el, on, render } from "../dom.js";
import { examplesField } from "../examplesfield.js";
import { clearErrors, showErrors } from "../fielderrors.js";
import { count, duration, money } from "../format.js";
import { failure } from "../parts.js";
import { algorithmCards, chosenAlgorithms } from "../new/algorithms.js";
import { constraintFields, readConstraints } from "../new/constraints.js";
import { objectiveRows, readMetrics, readObjectives } from "../new/objectives.js";
import { policyFields, readPolicy, syncPolicy } from "../new/policy.js";
import { addSchedule, scheduleFields } from "../new/schedule.js";
import { asCli, asCurl, asSdk } from "../request.js";
import { copyBlock } from "../parts.js";
import { bodyOf } from "../run/config.js";
import { needs, why } from "../who.js";

const form = byId("form");
const SAMPLE = {
  name: "orders", kind: "predict",
  signature: { instructions: "Which order is the message about?", inputs: [{ name: "message" }], outputs: [{ name: "order" }] },
};
const query = new URLSearchParams(location.search);
const examples = examplesField({ id: "examples" });
let estimated = null;
let metrics = [];

async function begin() {
  try {
    const [agents, datasets, algorithms, known, earlier] = await Promise.all([
      all("agents"), all("datasets"), get("algorithms/available"), get("metrics/available"),
      query.get("from") ? get(`optimizations/${encodeURIComponent(query.get("from"))}`).then(bodyOf) : null,
    ]);
    metrics = known.items;
    render(form, fields(agents, datasets, algorithms.items, earlier), side());
    form.querySelector(".estimate").setAttribute("data-own", "estimate");
    toggle();
  } catch (problem) {
    render(form, failure(problem, begin));
  }
}

function fields(agents, datasets, algorithms, earlier) {
  const agent = earlier?.target.id ?? query.get("agent");
  const dataset = earlier?.dataset.id ?? query.get("dataset");
  const isKept = agents.length > 0 && (agent || agents.length);
  return el("div", { class: "stack" },
    el("fieldset", { class: "card" }, el("legend", {}, "1. What is to be better"),
      segments("way-agent", [["kept", "A registered agent", agents.length > 0], ["config", "Its configuration", true]], isKept ? "kept" : "config"),
      el("div", { class: "field", "data-when": "way-agent=kept" }, el("label", { for: "agent" }, "Agent"),
        el("select", { id: "agent", "data-field": "target.id target" }, agents.map((one) => el("option", { value: one.name, selected: one.name === agent }, one.name)))),
      el("div", { class: "field", "data-when": "way-agent=config" }, el("label", { for: "config" }, "Configuration (JSON)"),
        el("textarea", { id: "config", "data-field": "target.config agent", spellcheck: "false" }, JSON.stringify(SAMPLE, null, 2)),
        el("small", {}, "A kind, a signature with instructions, inputs and outputs. The name tells agents apart.")),
      el("details", {}, el("summary", {}, "Only one component, or another version"),
        el("div", { class: "grid-fields" },
          text("version", "Baseline version", "target.version", "the newest", earlier?.target.version),
          text("component", "Component", "", "all of them")))),
    el("fieldset", { class: "card" }, el("legend", {}, "2. On which examples"),
      segments("way-data", [["kept", "A kept dataset", datasets.length > 0], ["examples", "Paste or upload", true]], datasets.length && (dataset || !agents.length) ? "kept" : datasets.length ? "kept" : "examples"),
      el("div", { class: "field", "data-when": "way-data=kept" }, el("label", { for: "dataset" }, "Dataset"),
        el("select", { id: "dataset", "data-field": "dataset.id dataset" }, datasets.map((one) => el("option", { value: one.id, selected: one.id === dataset }, `${one.name} · ${one.id.slice(0, 10)}`)))),
      el("div", { class: "stack", "data-when": "way-data=examples" }, examples.node,
        el("details", {}, el("summary", {}, "Fields and splits"),
          el("div", { class: "grid-fields" },
            text("dataset-name", "Name", "dataset.name", "examples"),
            text("cluster", "Field of what belongs together", "dataset.cluster", "none"),
            text("split-seed", "Seed of the split", "dataset.seed", "0", null, "number"),
            text("share-train", "Share of train", "dataset.shares.train", "0.3", null, "number"),
            text("share-val", "Share of val", "dataset.shares.val", "0.3", null, "number"),
            text("share-test", "Share of test", "dataset.shares.test", "0.4", null, "number"))))),
    objectiveRows(metrics, earlier, policyFields(earlier)),
    algorithmCards(algorithms, earlier),
    constraintFields(earlier));
}

const text = (id, label, field, placeholder, value = null, type = "text") =>
  el("div", { class: "field" }, el("label", { for: id }, label), el("input", { id, type, step: type === "number" ? "any" : null, "data-field": field, placeholder, value, autocomplete: "off" }));

function segments(name, choices, chosen) {
  return el("div", { class: "segments", role: "radiogroup" }, choices.map(([value, label, isPossible]) =>
    el("label", {}, el("input", { type: "radio", name, value, checked: value === chosen, disabled: !isPossible }), label)));
}

function side() {
  return el("aside", { class: "stack" },
    el("section", { class: "card estimate", "aria-label": "Estimate" },
      el("h2", {}, "What it takes"),
      el("div", { id: "problems" }),
      el("div", { id: "estimate", role: "status" }, el("p", { class: "muted" }, "Fill in the form; the estimate costs nothing and keeps nothing.")),
      el("button", { type: "button", id: "ask", ...needs("run") }, "Estimate"),
      el("button", { type: "submit", class: "primary", id: "start", disabled: true }, "Start"),
      why("run"),
      el("p", { class: "hint", id: "start-hint" }, "Start is possible once the estimate is there."),
      scheduleFields(),
      el("details", { id: "elsewhere" }, el("summary", {}, "Do the same elsewhere"), el("div", { class: "stack", id: "copies" }))));
}

function toggle() {
  for (const node of form.querySelectorAll("[data-when]")) {
    const [name, value] = node.dataset.when.split("=");
    node.hidden = form.querySelector(`[name="${name}"]:checked`)?.value !== value;
  }
  syncPolicy(form, readObjectives(form));
}

const chosen = (name) => form.querySelector(`[name="${name}"]:checked`)?.value;
const value = (id) => byId(id)?.value.trim() || null;

class FieldError extends Error {
  constructor(field, message) {
    super(message);
    Object.assign(this, { title: "Something is missing", detail: message, errors: [{ field, message }] });
  }
}

function read() {
  const target = {};
  if (chosen("way-agent") === "kept") target.id = value("agent");
  else {
    try {
      target.config = JSON.parse(byId("config").value);
    } catch (error) {
      throw new FieldError("target.config", `No JSON: ${error.message}`);
    }
    target.id = target.config.name ?? "agent";
  }
  if (value("version") && chosen("way-agent") === "kept") target.version = value("version");
  if (value("component")) Object.assign(target, { type: "component", id: `${target.id}/${value("component")}` });
  const dataset = {};
  if (chosen("way-data") === "kept") dataset.id = value("dataset");
  else {
    try {
      dataset.examples = examples.read();
    } catch (error) {
      throw new FieldError("dataset.examples", error.message);
    }
    if (!dataset.examples.length) throw new FieldError("dataset.examples", "Examples are wanted, found none.");
    for (const [id, name] of [["dataset-name", "name"], ["cluster", "cluster"]]) if (value(id)) dataset[name] = value(id);
    if (value("split-seed")) dataset.seed = Number(value("split-seed"));
    const shares = Object.fromEntries(["train", "val", "test"].map((one) => [one, Number(value(`share-${one}`))]).filter(([, share]) => share));
    if (Object.keys(shares).length) dataset.shares = shares;
  }
  const named = readMetrics(form, FieldError);
  const policy = readPolicy(form);
  return {
    target, dataset, objectives: readObjectives(form, FieldError), ...(named.length ? { metrics: named } : {}), ...(policy ? { policy } : {}),
    algorithms: chosenAlgorithms(form, FieldError), constraints: readConstraints(form),
  };
}

function stale() {
  estimated = null;
  byId("start").disabled = true;
  byId("keep").disabled = true;
  byId("start-hint").hidden = false;
  byId("estimate").replaceChildren(el("p", { class: "muted" }, "It was changed; estimate it again."));
}

async function ask() {
  clearErrors(form);
  const button = byId("ask");
  button.disabled = true;
  byId("estimate").replaceChildren(el("div", { class: "skeleton tall" }));
  try {
    const body = read();
    const answer = await post("estimate", body);
    estimated = { body, key: crypto.randomUUID?.() ?? String(Math.random()) };
    tell(answer, body);
  } catch (problem) {
    byId("estimate").replaceChildren(el("p", { class: "muted" }, "No estimate."));
    showErrors(form, problem.errors ? problem : Object.assign(problem, { title: "It did not work", detail: problem.message, errors: [] }), byId("problems"));
  } finally {
    button.disabled = false;
  }
}

function tell(answer, body) {
  const fact = (name, text) => [el("dt", {}, name), el("dd", {}, text)];
  const roles = Object.entries(answer.calls_by_role).filter(([, calls]) => calls).map(([role, calls]) => `${count(calls)} ${role}`).join(", ");
  byId("estimate").replaceChildren(
    el("div", { class: "stack" },
      el("dl", { class: "facts" },
        fact("At most", `${count(answer.calls)} calls`),
        fact("By role", roles || "–"),
        fact("By phase", Object.entries(answer.calls_by_phase).map(([phase, calls]) => `${count(calls)} ${phase}`).join(", ")),
        fact("Tokens", `at most ${count(answer.tokens)}`),
        fact("Cost", answer.cost_usd === null ? "price unknown" : `at most ${money(answer.cost_usd)}`),
        fact("Time", `about ${duration(answer.estimated_seconds)}, at most ${duration(60 * answer.minutes)}`),
        fact("Algorithms", answer.algorithms.join(", "))),
      answer.reason ? el("p", { class: "hint" }, answer.reason) : null,
      el("p", { class: "hint" }, answer.dataset)));
  byId("start").disabled = false;
  byId("keep").disabled = false;
  byId("start-hint").hidden = true;
  byId("copies").replaceChildren(copyBlock("curl", asCurl(body)), copyBlock("Python SDK", asSdk(body)), copyBlock("CLI", asCli(body)));
}

async function start(event) {
  event.preventDefault();
  if (!estimated) return;
  byId("start").disabled = true;
  try {
    const accepted = await post("optimize", estimated.body, { "Idempotency-Key": estimated.key });
    location.assign(`/optimizations/${accepted.optimization_id}`);
  } catch (problem) {
    showErrors(form, problem, byId("problems"));
    byId("start").disabled = false;
  }
}

async function keep() {
  if (!estimated) return;
  byId("keep").disabled = true;
  try {
    clearErrors(form);
    await addSchedule(estimated.body);
  } catch (problem) {
    showErrors(form, problem, byId("problems"));
    byId("keep").disabled = false;
  }
}

// What does not change the request leaves its estimate as it is.
const changesIt = (event) => !event.target.closest("#elsewhere, #repeat");

form.addEventListener("submit", start);
form.addEventListener("change", (event) => {
  toggle();
  if (changesIt(event)) stale();
});
form.addEventListener("input", (event) => estimated && changesIt(event) && stale());
on(form, "click", "#ask", ask);
on(form, "click", "#keep", keep);
await begin();
