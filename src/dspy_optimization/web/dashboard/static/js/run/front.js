// Several goals at once: who is beaten by nobody on val, how sure that is, and the way to the gate for another one.

import { get, post } from "../api.js";
import { Chart } from "../chart.js";
import { el, on, render } from "../dom.js";
import { count, money, share, short } from "../format.js";
import { confirm, empty, failure, gainText, notice, table, tag, verdictMeaning, verdictTag } from "../parts.js";
import { may, reason } from "../who.js";
import { pairOption, parallelOption, volumeOption } from "./goalcharts.js";
import { arrow, goalsOf, rangeText, standings, valueText } from "./goals.js";

const FINAL = ["completed", "cancelled"];

export class Front {
  constructor(run, panel) {
    this.run = run;
    this.panel = panel;
    this.front = null;
    this.means = null;
    this.axes = null;
    this.problem = null;
    this.isAsking = false;
    this.pair = new Chart({ label: "Two goals against each other, on val" });
    this.parallel = new Chart({ label: "All goals side by side, on val" });
    this.volume = new Chart({ label: "Share that the front dominates against paid calls", low: true });
    on(panel, "click", "[data-send]", (button) => this.send(button.dataset.send));
    on(panel, "change", "[data-axis]", (select) => {
      this.axes = { ...this.axes, [select.dataset.axis]: select.value };
      this.draw();
    });
  }

  get isShown() {
    return goalsOf(this.run.detail).length > 1;
  }

  async load() {
    if (!this.isShown) return;
    const { path, status } = this.run;
    try {
      [this.front, this.means] = await Promise.all([this.front ?? (status.results?.pareto_front ? get(`${path}/front`) : null), get(`${path}/means`)]);
      this.draw();
    } catch (problem) {
      if (!this.means) render(this.panel, failure(problem, () => this.load()));
    }
  }

  draw() {
    const { detail, status } = this.run;
    const found = standings(detail, this.front, this.means, this.run.progress.curve?.best.at(-1)?.candidate);
    if (!found.rows.length) {
      render(this.panel, el("div", { class: "card" }, empty("Nobody measured on all of val yet", "The baseline is the first one.")));
      return;
    }
    const names = found.goals.map((one) => one.metric);
    if (!names.includes(this.axes?.across) || !names.includes(this.axes?.up) || this.axes.across === this.axes.up) this.axes = { across: names[1], up: names[0] };
    const hasGrown = (this.front?.course.length ?? 0) > 1;
    render(this.panel,
      el("div", { class: "columns two", "data-key": "words" }, optimistic(found, this.front, this.means), sealed(status)),
      el("section", { class: "card", "data-key": "pair", "aria-label": "Two goals against each other" },
        el("header", {}, el("h2", {}, found.isFinal ? "The front" : "The front so far"), el("p", {}, found.isFinal ? "on val, with intervals both ways" : "on val, by the means alone: intervals come with the result")),
        names.length > 2 ? el("div", { class: "row" }, this.choice("across", "Across", names), this.choice("up", "Up", names)) : null,
        this.pair.node,
        el("p", { class: "hint" }, names.length > 2 ? "A point may look beaten here and be ahead in another goal. " : "Dotted: the edge of what the front dominates. ", "The table holds the numbers.")),
      el("div", { class: hasGrown ? "columns two" : "columns", "data-key": "more" },
        el("section", { class: "card", "data-key": "parallel", "aria-label": "All goals side by side" },
          el("header", {}, el("h2", {}, "All goals side by side"), el("p", {}, "the best of each on top")), this.parallel.node),
        hasGrown ? el("section", { class: "card", "data-key": "volume", "aria-label": "How the front grew" },
          el("header", {}, el("h2", {}, "How the front grew"), el("p", {}, "hypervolume, on val")), this.volume.node,
          el("p", { class: "hint" }, `The reference lies behind the worst: ${names.filter((name) => name in this.front.reference).map((name) => `${name} ${valueText(name, this.front.reference[name])}`).join(", ")}.`)) : null),
      this.listed(found));
    const points = found.rows.map((row) => `${row.name}: ${names.map((name) => `${name} ${valueText(name, row.means[name].value)}`).join(", ")}`).join("; ");
    for (const chart of [this.pair, this.parallel]) chart.node.setAttribute("aria-label", `${chart === this.pair ? `${this.axes.up} against ${this.axes.across}` : "All goals side by side"}, on val. ${points}. The table below holds the numbers.`);
    this.pair.show((colours) => pairOption(colours, found, this.axes.across, this.axes.up));
    this.parallel.show((colours) => parallelOption(colours, found));
    if (hasGrown) this.volume.show((colours) => volumeOption(colours, this.front, this.run.progress.curve?.points.at(-1)?.paid_calls ?? 0));
  }

  choice(axis, label, names) {
    const other = this.axes[axis === "up" ? "across" : "up"];
    return el("label", { class: "row" }, `${label} `, el("select", { "data-axis": axis }, names.filter((name) => name !== other).map((name) => el("option", { value: name, selected: name === this.axes[axis] }, name))));
  }

  listed({ goals, guardrails, rows, isFinal }) {
    const nameOf = new Map(rows.map((row) => [row.id, row.name]));
    const known = (ids) => ids.filter((id) => nameOf.has(id)).map((id) => nameOf.get(id));
    const doubt = (row) => [
      known(row.alike).length ? el("small", { class: "muted" }, `cannot be told apart from ${known(row.alike).join(", ")}`) : null,
      Object.entries(row.dominatedBy).filter(([id]) => nameOf.has(id)).sort(([, one], [, other]) => other - one).map(([id, often]) => el("small", { class: "muted" }, `dominated by ${nameOf.get(id)} in ${share(often)}`)),
    ];
    return el("section", { class: "card flush", "data-key": "table", "aria-label": "Candidates of the front" },
      el("header", {}, el("h2", {}, "Candidates"), el("p", {}, isFinal && this.front.size > this.front.points.length ? `${this.front.points.length} of ${count(this.front.size)} points, those with the most room around them` : "the best in the first goal first"), el("p", { class: "hint" }, "↑ more is better, ↓ less is better")),
      this.problem ? el("div", { class: "inset" }, notice("bad", this.problem.title ?? "It did not work", this.problem.message)) : null,
      table({
        caption: "Candidates of the front, on val",
        columns: [{ label: "Candidate" }, ...goals.map((one) => ({ label: `${one.metric} ${arrow(one)}` })), ...guardrails.map((one) => ({ label: `${one.metric}, guardrail` })), ...(isFinal ? [{ label: "On the front in" }] : []), { label: "To the gate" }],
        rows: rows.map((row) => ({
          key: row.id,
          cells: [
            el("span", { class: "row" }, row.isBaseline || row.isChosen ? null : el("b", {}, row.name), el("code", {}, short(row.id)), row.isBaseline ? tag("", "◆", "baseline") : null, row.isChosen ? tag("good", "★", isFinal ? "chosen" : "best so far") : null, row.holds ? null : tag("bad", "▲", "hurts a guardrail"), row.onFront ? null : tag("", "", "not on the front"), row.equal.length ? el("small", { class: "muted" }, `and ${row.equal.length} equal`) : null),
            ...[...goals, ...guardrails].map((one) => mean(one.metric, row.means[one.metric])),
            ...(isFinal ? [el("div", { class: "stack tight" }, el("span", {}, share(row.probability)), doubt(row))] : []),
            this.gate(row),
          ],
        })),
      }),
      isFinal ? el("p", { class: "pager" }, `Counted over ${count(this.front.resamples)} samples of the val ${this.front.clusters === null ? "examples" : "clusters"} drawn anew. Two cannot be told apart where no goal shows one ahead in 97.5 % of them.`) : null);
  }

  gate(row) {
    const because = this.whyNot(row);
    if (row.isBaseline) return el("small", { class: "muted" }, because);
    return el("span", { class: "stack tight" },
      el("button", { type: "button", class: "small nowrap", "data-send": row.id, disabled: Boolean(because) || this.isAsking, title: because, "aria-label": `Send to the gate: ${row.name === "chosen" ? "the chosen one" : `candidate ${row.name}`}` }, "Send to the gate"),
      because ? el("small", { class: "muted", "data-why-not": true }, because) : null);
  }

  whyNot(row) {
    if (row.isBaseline) return "what all are compared with";
    if (!may("run")) return reason("run");
    if (!FINAL.includes(this.run.detail.status)) return "It has not ended yet.";
    if (row.isChosen && this.run.status.results?.verdict) return "It was at the gate.";
    return row.holds ? null : "It hurts a guardrail on val, and would not be taken.";
  }

  // What it would be is asked first: which use of the test split, at which level, for how much.
  async send(candidate) {
    const path = `${this.run.path}/pick`;
    this.problem = null;
    this.isAsking = true;
    this.draw();
    try {
      const look = await get(`${path}?candidate=${candidate}`);
      const cost = `It takes at most ${count(look.calls)} calls (${money(look.cost_usd)}); what was answered before is not paid again.`;
      if (!(await confirm({ title: `Send ${short(candidate)} to the gate?`, text: `${look.sentence} ${cost}`, action: `Spend use ${look.test_split_use} of the test split` }))) return;
      const made = await post(path, { candidate }, { "Idempotency-Key": `${this.run.detail.optimization_id}/${look.test_split_use}/${candidate.slice(0, 32)}` });
      location.assign(`/optimizations/${made.optimization_id}`);
    } catch (problem) {
      this.problem = problem;
    } finally {
      this.isAsking = false;
      this.draw();
    }
  }
}

const mean = (metric, one) => el("div", { class: "stack tight" }, el("span", {}, valueText(metric, one.value)), rangeText(metric, one) ? el("small", { class: "muted nowrap" }, rangeText(metric, one)) : null);

function optimistic(found, front, means) {
  const pick = front?.pick;
  const many = means && means.total > means.items.length ? ` ${count(means.items.length)} of them are drawn.` : "";
  return el("section", { class: "card", "data-key": "optimistic", "aria-label": "Measured on val" },
    el("div", { class: "row" }, tag("unsure", "!", "measured on val: optimistic")),
    pick ? el("p", { class: "break" }, "Taken by the policy ", el("b", {}, pick.policy.replaceAll("_", " ")), `: ${pick.reason}.`) : el("p", {}, front ? "An older engine took it, and did not say why." : "Who goes to the gate is decided when the search has ended."),
    el("p", { class: "hint" }, `${count(front?.candidates ?? means?.total ?? 0)} candidates were measured on all of val, ${count(front?.n ?? means?.n)} examples.${many} The search looked at them, so all of this flatters: it is for choosing, and claims nothing.`));
}

function sealed(status) {
  const results = status.results;
  return el("section", { class: "card", "data-key": "sealed", "aria-label": "The sealed verdict" },
    el("div", { class: "row" }, el("span", { class: "muted" }, "The sealed verdict:"), results ? verdictTag(results.verdict) : tag("", "", "not yet")),
    el("p", { class: "break" }, results
      ? results.confidence_interval ? `Gain on test in the first goal: ${gainText(results.absolute_improvement, results.confidence_interval)}. ${verdictMeaning(results.verdict)}` : results.verdict ? verdictMeaning(results.verdict) : "The test split was not opened, so nothing is claimed."
      : "The test split is opened once, at the end, for the chosen one alone."),
    el("p", { class: "hint" }, "Said on test examples that nobody optimized on. Sending another candidate there is a further use of them, at a smaller level."));
}
