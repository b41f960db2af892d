// What was measured, who came from whom, and how any two differ.

import { get } from "../api.js";
import { Chart, STAR, axis, tooltip } from "../chart.js";
import { diffView } from "../diff.js";
import { el, on, render } from "../dom.js";
import { at, count, score, short } from "../format.js";
import { empty, failure, table, tag } from "../parts.js";

const MOST_NODES = 300;

export class Candidates {
  constructor(run, panel) {
    this.run = run;
    this.panel = panel;
    this.cursors = [null];
    this.page = null;
    this.lineage = null;
    this.diff = null;
    this.pick = { from: null, to: null };
    this.chart = new Chart({ label: "Which candidate came from which", low: true });
    this.chart.onReady = (chart) => chart.on("click", ({ dataType, data }) => dataType === "node" && this.choose("to", data.id));
    on(panel, "click", "[data-pick]", (button) => this.choose(button.dataset.pick, button.dataset.candidate));
    on(panel, "click", "[data-turn]", (button) => this.turn(button.dataset.turn));
    on(panel, "click", "[data-swap]", () => this.compare(this.pick.to, this.pick.from));
  }

  async load() {
    try {
      const cursor = this.cursors.at(-1);
      [this.page, this.lineage] = await Promise.all([
        get(`${this.run.path}/candidates?limit=25${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`),
        get(`${this.run.path}/lineage`),
      ]);
      if (!this.diff && !this.pick.from) await this.compare(null, null, true);
      this.draw();
    } catch (problem) {
      if (!this.page) render(this.panel, failure(problem, () => this.load()));
    }
  }

  async turn(way) {
    if (way === "next") this.cursors.push(this.page.next_cursor);
    else this.cursors.pop();
    await this.load();
  }

  async choose(side, candidate) {
    const next = { ...this.pick, [side]: candidate };
    await this.compare(next.from, next.to);
  }

  async compare(from, to, isQuiet = false) {
    const query = new URLSearchParams();
    if (from) query.set("from", from);
    if (to) query.set("to", to);
    try {
      this.diff = await get(`${this.run.path}/diff?${query}`);
      this.pick = { from: this.diff.from, to: this.diff.to };
      this.problem = null;
    } catch (problem) {
      this.problem = isQuiet ? null : problem;
    }
    if (!isQuiet) this.draw();
  }

  draw() {
    const { items, next_cursor: next } = this.page;
    if (!items.length) {
      render(this.panel, el("div", { class: "card" }, empty("No candidate yet", "The baseline is measured first.")));
      return;
    }
    const family = drawn(this.lineage);
    render(this.panel,
      el("div", { class: "columns two" },
        el("section", { class: "card", "data-key": "lineage", "aria-label": "Lineage" },
          el("header", {}, el("h2", {}, "Lineage"), el("p", {}, "who came from whom; a click compares")),
          this.chart.node,
          el("div", { class: "legend" }, el("span", {}, "◆ baseline"), el("span", {}, "★ chosen"), algorithmsOf(family).map((name, place) => el("span", {}, el("i", { style: { background: `var(--series-${1 + (place % 6)})` } }), name)), family.nodes.some((one) => one.score === null) ? el("span", {}, el("i", { class: "hollow" }), "never on all of val") : null),
          family.left ? el("p", { class: "hint" }, `${count(family.nodes.length)} of ${count(this.lineage.nodes.length)} are drawn: the chosen one with its ancestors, and the best.`) : null),
        el("section", { class: "card", "data-key": "diff", "aria-label": "Difference" },
          el("div", { class: "row spread" },
            el("h2", {}, "Difference"),
            this.diff ? el("span", { class: "row" }, el("span", { class: "mono" }, `${this.label(this.diff.from)} → ${this.label(this.diff.to)}`), el("button", { type: "button", class: "small", "data-swap": true }, "Swap")) : null),
          this.problem ? el("p", { class: "field-error" }, this.problem.message) : null,
          this.diff ? diffView(this.diff) : el("p", { class: "muted" }, "Choose two below: “from” and “to”."))),
      el("section", { class: "card flush", "data-key": "table", "aria-label": "Candidates" },
        el("header", {}, el("h2", {}, "Trials"), el("p", {}, "in the order they were measured")),
        table({
          caption: "Trials",
          columns: [{ label: "Candidate" }, { label: "Algorithm" }, { label: "Score", number: true }, { label: "Examples", number: true }, { label: "Paid calls", number: true }, { label: "At" }, { label: "Compare" }],
          rows: items.map((one, place) => ({ key: `${this.cursors.length}-${place}`, cells: this.row(one) })),
        }),
        el("div", { class: "pager" },
          el("span", {}, `Page ${this.cursors.length}`),
          el("span", { class: "row" },
            el("button", { type: "button", class: "small", "data-turn": "back", disabled: this.cursors.length === 1 }, "Earlier"),
            el("button", { type: "button", class: "small", "data-turn": "next", disabled: !next }, "Later")))));
    if (family.nodes.length) this.chart.show((colours) => option(colours, family, this.pick));
  }

  label(fingerprint) {
    const node = this.lineage?.nodes.find((one) => one.id === fingerprint);
    return node?.is_baseline ? "baseline" : node?.is_chosen ? `chosen ${short(fingerprint)}` : short(fingerprint);
  }

  row(one) {
    const pick = (side) => el("button", { type: "button", class: "small", "data-pick": side, "data-candidate": one.candidate, "aria-pressed": String(this.pick[side] === one.candidate), "aria-label": `Compare ${side} ${short(one.candidate)}` }, this.pick[side] === one.candidate ? `✓ ${side}` : side);
    return [
      el("span", { class: "row" }, el("code", {}, short(one.candidate, 10)), one.is_baseline ? tag("", "◆", "baseline") : null, one.is_chosen ? tag("good", "★", "chosen") : null),
      one.algorithm,
      el("b", {}, score(one.score)),
      el("span", {}, `${one.n_examples} ${one.split}`, one.complete ? "" : el("span", { class: "muted" }, " (part)")),
      count(one.paid_calls),
      at(one.recorded_at),
      el("span", { class: "row" }, pick("from"), pick("to")),
    ];
  }
}

// A family of thousands is no picture: the chosen one with its ancestors, the baseline and the best are.
function drawn(lineage) {
  if (lineage.nodes.length <= MOST_NODES) return { ...lineage, left: 0 };
  const parents = new Map();
  for (const { from, to } of lineage.edges) parents.set(to, [...(parents.get(to) ?? []), from]);
  const kept = new Set(lineage.nodes.filter((one) => one.is_baseline || one.is_chosen).map((one) => one.id));
  const open = [...kept];
  for (let id = open.pop(); id; id = open.pop()) {
    for (const parent of parents.get(id) ?? []) if (!kept.has(parent)) kept.add(parent) && open.push(parent);
  }
  for (const one of [...lineage.nodes].sort((a, b) => (b.score ?? -Infinity) - (a.score ?? -Infinity))) {
    if (kept.size >= MOST_NODES) break;
    kept.add(one.id);
  }
  return {
    nodes: lineage.nodes.filter((one) => kept.has(one.id)),
    edges: lineage.edges.filter(({ from, to }) => kept.has(from) && kept.has(to)),
    left: lineage.nodes.length - kept.size,
  };
}

// One crossed from two says so: its two lines may lie on each other.
function parentsOf(family, id) {
  const parents = family.edges.filter(({ to }) => to === id).map(({ from }) => short(from));
  return parents.length > 1 ? `\nfrom ${parents.join(" and ")}` : "";
}

const algorithmsOf = (family) => [...new Set(family.nodes.filter((one) => !one.is_baseline).map((one) => one.algorithm))];

// Along: how many steps from the baseline. Up: the score.
function option(colours, family, pick) {
  const scores = family.nodes.map((one) => one.score).filter((one) => one !== null);
  const lowest = scores.length ? Math.min(...scores) : 0;
  const range = scores.length ? Math.max(...scores) - lowest : 0;
  const least = lowest - Math.max(0.14 * range, 0.02); // below the others: never measured on all of val
  const algorithms = algorithmsOf(family);
  const crowd = new Map();
  const places = new Map();
  const nodes = family.nodes.map((one) => {
    const spot = `${one.generation}/${(one.score ?? least).toFixed(2)}`;
    const taken = crowd.get(spot) ?? 0;
    crowd.set(spot, taken + 1);
    const aside = taken === 0 ? 0 : (taken % 2 ? 1 : -1) * Math.ceil(taken / 2) * 0.09;
    const picked = pick.from === one.id ? "from" : pick.to === one.id ? "to" : "";
    places.set(one.id, places.size);
    const ink = one.is_baseline ? colours.ink : colours.series[algorithms.indexOf(one.algorithm) % 6];
    return {
      id: one.id, value: [one.generation + Math.max(-0.42, Math.min(0.42, aside)), one.score ?? least],
      symbol: one.is_baseline ? "diamond" : one.is_chosen ? STAR : "circle",
      symbolSize: one.is_chosen ? 22 : one.is_baseline ? 18 : Math.max(7, 13 - family.nodes.length / 50),
      itemStyle: one.score === null
        ? { color: colours.card, borderColor: picked ? colours.ink : ink, borderWidth: picked ? 3 : 1.5 }
        : { color: ink, opacity: 0.92, borderColor: picked ? colours.ink : colours.card, borderWidth: picked ? 3 : 1 },
      label: { show: picked !== "" || one.is_chosen || one.is_baseline, formatter: [one.is_baseline ? "baseline" : one.is_chosen ? "chosen" : "", picked && !one.is_baseline && !one.is_chosen ? picked : ""].filter(Boolean).join(" "), position: one.is_baseline ? "top" : "right", color: colours.quiet, fontFamily: colours.font, fontSize: 12 },
      told: one,
    };
  });
  const most = Math.max(...family.nodes.map((one) => one.generation));
  return {
    grid: { left: 56, right: 24, top: 16, bottom: 44 },
    xAxis: axis(colours, "steps from the baseline", { nameGap: 26, min: -0.5, max: Math.max(most, 1) + 0.7, interval: Math.max(1, Math.ceil(most / 8)), axisLabel: { show: false }, splitLine: { show: false } }),
    yAxis: axis(colours, "score on val", { nameGap: 42, scale: true, axisLabel: { color: colours.quiet, fontFamily: colours.font, fontSize: 12, formatter: (value) => (value < 0 && lowest >= 0 ? "" : String(Number(value.toPrecision(6)))) } }),
    tooltip: { ...tooltip(colours), formatter: ({ dataType, data }) => (dataType === "node" ? `${short(data.id)} · ${data.told.label}${parentsOf(family, data.id)}\n${data.told.score === null ? "never measured on all of val" : `${score(data.told.score)} on val`}\n${data.told.algorithm}` : "") },
    series: [{
      type: "graph", coordinateSystem: "cartesian2d", layout: "none", animation: false, data: nodes,
      edges: family.edges.filter(({ from, to }) => places.has(from) && places.has(to)).map(({ from, to }) => ({ source: places.get(from), target: places.get(to) })), edgeSymbol: ["none", "arrow"], edgeSymbolSize: 6,
      lineStyle: { color: colours.faint, opacity: family.edges.length > 120 ? 0.3 : 0.55, curveness: 0.08 }, cursor: "pointer", emphasis: { focus: "adjacency" },
    }],
  };
}
