// The goals of one optimization, and who stands where: of the front of the result, or of the means so far.

import { money, score } from "../format.js";

export const goalsOf = (detail) => (detail?.request.objectives ?? []).filter((one) => !one.guardrail);

export const isUp = (goal) => goal.direction !== "minimize";
export const wish = (goal) => (isUp(goal) ? "more is better" : "less is better");
export const oriented = (goal, value) => (isUp(goal) ? value : -value);

// In the unit of the metric.
export function valueText(metric, value) {
  if (metric === "cost_usd") return money(value);
  return metric === "latency_seconds" ? `${score(value)} s` : score(value);
}

export const arrow = (goal) => (isUp(goal) ? "↑" : "↓");

export const rangeText = (metric, mean) => (mean.low === null || mean.low === undefined ? null : `${valueText(metric, mean.low)} to ${valueText(metric, mean.high)}`);

export const meanText = (metric, mean) =>
  rangeText(metric, mean) ? `${valueText(metric, mean.value)} (${rangeText(metric, mean)})` : valueText(metric, mean.value);

// Everybody as the pictures and the table show them. With a result: the front with intervals and how sure it is, and
// the rest of the means. Without one: who is beaten by nobody so far, by the means alone.
export function standings(detail, front, means, leader) {
  const goals = goalsOf(detail);
  const guardrails = detail.request.objectives.filter((one) => one.guardrail);
  const known = front ? listed(front) : soFar(goals, means, leader);
  const ids = new Set(known.flatMap((one) => [one.id, ...one.equal]));
  const others = (means?.items ?? []).filter((one) => !ids.has(one.candidate));
  return { goals, guardrails, rows: named(known), others, isFinal: Boolean(front) };
}

function listed(front) {
  const ids = new Set(front.points.map((one) => one.candidate));
  const beside = [front.baseline, front.chosen].filter((one) => !ids.has(one.candidate) && ids.add(one.candidate));
  return [...front.points, ...beside].map((one) => ({
    id: one.candidate, algorithm: one.algorithm, origin: one.origin, means: one.means, holds: one.guardrails_hold, onFront: one.on_front,
    isBaseline: one.is_baseline, isChosen: one.is_chosen, probability: one.probability_on_front, dominatedBy: one.dominated_by, alike: one.alike, equal: one.equal,
  }));
}

function soFar(goals, means, leader) {
  const items = means?.items ?? [];
  const able = items.filter((one) => one.guardrails_hold);
  const beaten = (one) => able.some((other) => other !== one && dominates(goals, other.means, one.means));
  const seen = new Set();
  return items
    .map((one) => ({ one, onFront: one.guardrails_hold && !beaten(one) }))
    .filter(({ one, onFront }) => {
      const place = goals.map((goal) => one.means[goal.metric]).join("/");
      const isFirst = !seen.has(place) && onFront;
      if (isFirst) seen.add(place);
      return isFirst || one.is_baseline || one.candidate === leader;
    })
    .map(({ one, onFront }) => ({
      id: one.candidate, algorithm: one.algorithm, origin: "", means: Object.fromEntries(Object.entries(one.means).map(([name, value]) => [name, { value, low: null, high: null }])),
      holds: one.guardrails_hold, onFront, isBaseline: one.is_baseline, isChosen: one.candidate === leader && !one.is_baseline, probability: null, dominatedBy: {}, alike: [], equal: [],
    }))
    .sort((one, other) => oriented(goals[0], other.means[goals[0].metric].value) - oriented(goals[0], one.means[goals[0].metric].value));
}

function dominates(goals, one, other) {
  let isBetter = false;
  for (const goal of goals) {
    const gain = oriented(goal, one[goal.metric]) - oriented(goal, other[goal.metric]);
    if (gain < 0) return false;
    if (gain > 0) isBetter = true;
  }
  return isBetter;
}

const named = (rows) => rows.map((one, place) => ({ ...one, name: one.isBaseline ? "baseline" : one.isChosen ? "chosen" : String(place + 1) }));
