// How the score rose while calls were paid, what is spent, when it ends, what happens.

import { get } from "../api.js";
import { Chart, axis, tooltip } from "../chart.js";
import { el, render } from "../dom.js";
import { count, duration, money, score, share, short, when } from "../format.js";
import { empty, failure, progressBar } from "../parts.js";
import { eventLine } from "./events.js";
import { Rounds } from "./rounds.js";

const FEED = 30;

export class Progress {
  constructor(run, panel) {
    this.run = run;
    this.panel = panel;
    this.chart = new Chart({ label: "Score on val against paid calls" });
    this.rounds = new Rounds(run);
    this.curve = null;
    this.isShown = false;
  }

  async load() {
    try {
      [this.curve] = await Promise.all([get(`${this.run.path}/curve?points=2000`), this.rounds.load()]);
      this.draw();
    } catch (problem) {
      if (!this.curve) render(this.panel, failure(problem, () => this.load()));
    }
  }

  draw() {
    const { status, detail } = this.run;
    const { points, best, baseline_score: baseline, total } = this.curve;
    const top = best.at(-1)?.score;
    const summary = points.length
      ? `${count(total)} candidates measured on val; baseline ${score(baseline)}, best so far ${score(top)} after ${count(points.at(-1).paid_calls)} paid calls.`
      : "";
    render(this.panel,
      el("div", { class: "columns aside" },
        el("div", { class: "stack", "data-key": "main" }, el("section", { class: "card", "data-key": "chart", "aria-label": "Score against paid calls" },
          el("header", {}, el("h2", {}, "Score on val"), el("p", {}, "optimistic; the verdict is said on test")),
          points.length ? this.chart.node : empty("Nothing measured yet", "The first point is the baseline."),
          el("p", { class: "hint" }, summary, total > points.length ? ` ${count(points.length)} of them are drawn.` : "")),
          this.rounds.view(),
          el("section", { class: "card", "data-key": "events", "aria-label": "Newest events" },
            el("h2", {}, "Newest events"),
            el("ol", { class: "feed", "data-own": "feed", id: "feed", tabindex: "0", "aria-label": "Newest events" }))),
        el("div", { class: "stack", "data-key": "aside" }, standing(detail, status), budget(detail, status))));
    this.feed();
    if (points.length) this.chart.show((colours) => option(colours, this.curve));
  }

  feed() {
    const place = this.panel.querySelector("#feed");
    if (place) render(place, this.run.events.newest(FEED).map((one) => eventLine(one)));
  }
}

function standing(detail, status) {
  const { metrics } = status;
  const isOver = ["completed", "failed", "cancelled"].includes(detail.status);
  return el("section", { class: "card", "aria-label": "Where it stands" },
    el("div", { class: "row" }, progressBar(status.progress, "Progress"), el("b", {}, `${Math.round(100 * status.progress)} %`)),
    el("dl", { class: "facts" },
      fact("Phase", metrics.phase ?? "–"),
      fact("Algorithm", metrics.algorithm ?? "–"),
      fact("Iteration", metrics.current_iteration ?? "–"),
      fact("Best on val", score(metrics.best_score)),
      fact("Trials", count(metrics.trials)),
      fact("Worked", duration(metrics.elapsed_seconds)),
      isOver ? null : fact("Left, about", metrics.eta_seconds === null ? "not known yet" : duration(metrics.eta_seconds)),
      isOver || !status.estimated_completion ? null : fact("Done, about", when(status.estimated_completion))));
}

const fact = (name, value) => [el("dt", {}, name), el("dd", {}, String(value))];

function budget(detail, status) {
  const limits = detail.request.constraints?.limits ?? {};
  const { metrics } = status;
  const lines = [
    ["Calls", metrics.lm_calls, limits.max_lm_calls, count],
    ["Tokens", metrics.tokens, limits.max_tokens, count],
    ["Cost", metrics.cost_usd.total, limits.max_cost_usd, money],
    ["Time", metrics.elapsed_seconds, limits.max_seconds, duration],
  ];
  const { total, ...roles } = metrics.cost_usd;
  return el("section", { class: "card", "aria-label": "Budget" },
    el("h2", {}, "Budget"),
    el("div", { class: "budget" },
      lines.map(([name, used, cap, write]) =>
        el("div", {},
          el("div", { class: "row spread" }, el("span", { class: "muted" }, name), el("span", {}, cap ? `${write(used)} of ${write(cap)}` : `${write(used)}, no cap`)),
          cap ? progressBar(used / cap, `${name}: share of the cap`) : null))),
    el("h3", {}, "Cost by role"),
    total > 0
      ? el("div", { class: "budget" },
          Object.entries(roles).map(([role, cost]) =>
            el("div", {}, el("div", { class: "row spread" }, el("span", { class: "muted" }, role), el("span", {}, `${money(cost)} · ${share(cost / total)}`)), progressBar(cost / total, `Cost of ${role}`))))
      : el("p", { class: "hint" }, "These models cost nothing."));
}

function option(colours, curve) {
  const algorithms = [...new Set(curve.points.map((one) => one.algorithm))];
  const last = curve.points.at(-1).paid_calls;
  const shape = ["circle", "triangle", "rect", "diamond", "roundRect", "pin"];
  const text = ({ data }) => data && `${data[2]}\n${score(data[1])} on val\nafter ${count(data[0])} paid calls\ncandidate ${short(data[3])}${data[4] ? "" : "\nnot all of val"}`;
  const scatter = algorithms.map((name, place) => {
    const ink = name === "baseline" ? colours.ink : colours.series[place % colours.series.length];
    return {
      name, type: "scatter", symbol: shape[place % shape.length], symbolSize: 9, animation: false, progressive: 1000,
      data: curve.points.filter((one) => one.algorithm === name).map((one) => ({
        value: [one.paid_calls, one.score, name, one.candidate, one.complete],
        itemStyle: one.complete ? { color: ink } : { color: "transparent", borderColor: ink, borderWidth: 1.5 },
      })),
      itemStyle: { color: ink, opacity: curve.points.length > 400 ? 0.55 : 0.9 },
    };
  });
  const steps = curve.best.map((one) => [one.paid_calls, one.score, "best so far", one.candidate, true]);
  if (steps.length) steps.push([last, steps.at(-1)[1], "best so far", steps.at(-1)[3], true]);
  return {
    textStyle: { fontFamily: colours.font },
    grid: { left: 58, right: 18, top: 44, bottom: curve.points.length > 150 ? 92 : 52 },
    legend: { top: 4, left: 46, right: 10, type: "scroll", pageIconColor: colours.quiet, pageTextStyle: { color: colours.quiet }, textStyle: { color: colours.quiet, fontFamily: colours.font, fontSize: 12.5 }, itemWidth: 18, itemHeight: 10, inactiveColor: colours.faint },
    tooltip: { trigger: "item", formatter: text, ...tooltip(colours) },
    xAxis: axis(colours, "paid calls", { nameGap: 30, min: 0 }),
    yAxis: axis(colours, "score on val", { nameGap: 42, scale: true }),
    dataZoom: [
      { type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false },
      ...(curve.points.length > 150 ? [{ type: "slider", height: 22, bottom: 14, borderColor: colours.line, textStyle: { color: colours.quiet } }] : []),
    ],
    series: [
      {
        name: "best so far", type: "line", step: "end", symbol: "none", data: steps, animation: false, z: 3,
        lineStyle: { width: 2.5, color: colours.accent }, itemStyle: { color: colours.accent },
        markLine: curve.baseline_score === null ? undefined : {
          silent: true, symbol: "none", animation: false, data: [{ yAxis: curve.baseline_score }],
          lineStyle: { color: colours.faint, type: "dashed", width: 1.5 },
          label: { formatter: `baseline ${score(curve.baseline_score)}`, position: "insideEndTop", color: colours.quiet, fontFamily: colours.font },
        },
      },
      ...scatter,
    ],
  };
}
