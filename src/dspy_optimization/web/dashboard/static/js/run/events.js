// What happened, newest first. What is new is asked for forwards, what is older backwards, each by its id.

import { get } from "../api.js";
import { el, on, render } from "../dom.js";
import { at, count, duration, money, score, short, signed } from "../format.js";
import { empty } from "../parts.js";

const WINDOW = 60;
const MOST = 1000;

export class Events {
  constructor(run, panel) {
    this.run = run;
    this.panel = panel;
    this.items = [];
    this.oldest = null;
    this.isComplete = false;
    this.kind = "";
    on(panel, "click", "[data-older]", () => this.older());
    on(panel, "change", "select", (select) => {
      this.kind = select.value;
      this.draw();
    });
  }

  newest(most) {
    return this.items.slice(-most).reverse();
  }

  // `last` is the id of the newest event, as the stream said.
  async begin(last) {
    if (this.oldest !== null) return this.fresh();
    this.oldest = last + 1;
    await this.older();
  }

  async fresh() {
    const after = this.items.at(-1)?.id ?? Math.max(0, (this.oldest ?? 1) - 1);
    let known = this.items.at(-1)?.id ?? 0;
    let page = null;
    for (let place = after; page === null || page.items.length === MOST; place = known) {
      page = await get(`${this.run.path}/log?after=${place}&limit=${MOST}`);
      this.items.push(...page.items.filter((one) => one.id > known));
      known = this.items.at(-1)?.id ?? place;
    }
    if (this.oldest === null) this.isComplete = true; // it was read from the beginning
    this.oldest ??= this.items[0]?.id ?? 1;
    this.draw();
  }

  async older() {
    const page = await get(`${this.run.path}/log?sort=-id&before=${this.oldest}&limit=${WINDOW}`);
    const found = page.items.reverse();
    this.isComplete = found.length < WINDOW;
    this.oldest = found[0]?.id ?? this.oldest;
    this.items.unshift(...found);
    this.draw();
  }

  draw() {
    this.run.progress.feed();
    const kinds = [...new Set(this.items.map((one) => one.type))].sort();
    const shown = this.items.filter((one) => !this.kind || one.type === this.kind).reverse();
    render(this.panel,
      el("section", { class: "card", "aria-label": "Events" },
        el("div", { class: "row spread" },
          el("h2", {}, `${count(shown.length)} events`, this.isComplete ? "" : ", older ones not loaded"),
          el("label", { class: "row" }, "Kind ", el("select", {}, el("option", { value: "" }, "all"), kinds.map((kind) => el("option", { value: kind, selected: kind === this.kind }, kind))))),
        shown.length ? el("ol", { class: "feed long" }, shown.map((one) => eventLine(one, true))) : empty("No events yet"),
        this.isComplete ? null : el("button", { type: "button", "data-older": true }, "Load older ones")));
  }
}

export function eventLine(event, isLong = false) {
  return el("li", { "data-key": String(event.id) }, at(event.at), el("span", {}, isLong ? el("b", {}, `${event.type} `) : null, sentence(event)));
}

function sentence({ type, data }) {
  switch (type) {
    case "optimization.accepted":
      return `Accepted: at most ${count(data.calls)} calls, about ${duration(data.estimated_seconds)}, ${money(data.estimated_cost_usd)}.`;
    case "optimization.completed":
      return `Completed: ${data.verdict ? String(data.verdict).replaceAll("_", " ") : "no verdict"} (${data.ended_because}), ${count(data.lm_calls)} calls, ${money(data.cost_usd)}.`;
    case "optimization.cancelled":
      return "Cancelled; the best so far is kept.";
    case "optimization.paused":
      return `Paused${data.reason ? `: ${data.reason}` : ""}.`;
    case "optimization.started":
      return "A worker began.";
    case "optimization.queued":
      return `Queued again${data.reason ? `: ${data.reason}` : ""}.`;
    case "phase.started":
      return `Phase: ${data.phase}.`;
    case "algorithm.started":
      return `${data.algorithm} begins (${data.reason}), at most ${count(data.allowance_calls)} calls.`;
    case "algorithm.ended":
      return `${data.algorithm} ended: ${data.outcome}; best ${score(data.best_score)}.`;
    case "trial.recorded":
      return `Candidate ${short(data.candidate)} by ${data.algorithm}: ${score(data.score)} on ${data.n_examples} ${data.split} examples.`;
    case "progress":
      return `${data.phase ?? data.algorithm}${data.iterations ? `, ${data.iteration} of ${data.iterations}` : ""}; best ${score(data.best_score)}, ${count(data.lm_calls)} calls.`;
    case "tracking.failed":
      return `Not recorded in MLflow (the optimization itself is not touched by it): ${data.error}`;
    case "tracking.recorded":
      return `Recorded in MLflow as ${data.run_id}.`;
    case "budget.warning":
      return `Budget: ${Math.round(100 * data.share)} % of ${data.cap} is used.`;
    case "model.fallback":
      return `${data.role}: ${data.used} instead of ${data.wanted}, because ${data.reason}.`;
    case "device.fallback":
      return `${data.reason}.`;
    case "experiment.alert":
      return `Experiment ${short(data.experiment_id)}: ${data.reason}`;
    case "experiment.result":
      return `Experiment ${short(data.experiment_id)} has ended: winner ${data.winner}, confidence ${score(data.confidence)}${data.deployment_recommended ? "; deployment recommended" : ""}.`;
    case "verdict":
      return `Verdict on ${data.objective}: ${String(data.verdict).replaceAll("_", " ")}${data.difference === undefined || data.difference === null ? "" : `, ${typeof data.difference === "number" ? signed(data.difference) : JSON.stringify(data.difference)}`}.`;
    default: {
      const told = Object.entries(data).map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
      return told || `${type.replace(".", " ")}.`;
    }
  }
}
