// Pictures of several goals: two against each other, all of them side by side, how the front grew.

import { STAR, axis, tooltip } from "../chart.js";
import { count, share, short } from "../format.js";
import { isUp, meanText, oriented, valueText, wish } from "./goals.js";

const MOST_OTHERS = 2000;
const GAP = ["-", "-"];

const kinds = (colours) => ({
  baseline: { name: "baseline", symbol: "diamond", size: 17, ink: colours.ink },
  chosen: { name: "chosen", symbol: STAR, size: 21, ink: colours.good },
  front: { name: "on the front", symbol: "circle", size: 13, ink: colours.series[1] },
  hurts: { name: "hurts a guardrail", symbol: "triangle", size: 14, ink: colours.bad },
});

const kindOf = (row) => (row.isBaseline ? "baseline" : row.isChosen ? "chosen" : row.holds ? "front" : "hurts");

const legend = (colours) => ({ top: 4, left: 8, right: 8, type: "scroll", pageIconColor: colours.quiet, pageTextStyle: { color: colours.quiet }, textStyle: { color: colours.quiet, fontFamily: colours.font, fontSize: 12.5 }, itemWidth: 15, itemHeight: 12, inactiveColor: colours.faint });

export function pairOption(colours, { goals, rows, others, isFinal }, across, up) {
  const x = goals.find((one) => one.metric === across);
  const y = goals.find((one) => one.metric === up);
  const at = (row) => [row.means[across].value, row.means[up].value];
  const told = (row) => [
    `${row.name}${row.isBaseline ? "" : ` · ${short(row.id)}`}`, row.holds ? "" : "hurts a guardrail", `${up} ${meanText(up, row.means[up])}`, `${across} ${meanText(across, row.means[across])}`,
    row.probability === null ? "" : `on the front in ${share(row.probability)} of the samples`,
  ].filter(Boolean).join("\n");
  const whisker = (row, kind) => {
    const [a, b] = at(row);
    const { low: left, high: right } = row.means[across];
    const { low, high } = row.means[up];
    return [...(left === null ? [] : [[left, b], [right, b], GAP]), ...(low === null ? [] : [[a, low], [a, high], GAP])].map((value) => ({ value, kind }));
  };
  const marks = Object.entries(kinds(colours)).flatMap(([kind, look]) => {
    const mine = rows.filter((row) => kindOf(row) === kind);
    if (!mine.length) return [];
    return [
      {
        name: look.name, type: "line", data: mine.flatMap((row) => whisker(row, kind)), symbol: "none", animation: false, silent: true, z: 3,
        lineStyle: { color: look.ink, width: 1.75, opacity: 0.5 }, tooltip: { show: false },
      },
      {
        name: look.name, type: "scatter", symbol: look.symbol, symbolSize: look.size, animation: false, z: 5, itemStyle: { color: look.ink, borderColor: colours.card, borderWidth: 1 },
        data: mine.map((row) => ({ value: at(row), told: told(row), id: row.id })),
        label: { show: true, position: "right", distance: 6, formatter: ({ data }) => rows.find((row) => row.id === data.id)?.name ?? "", color: colours.quiet, fontFamily: colours.font, fontSize: 12, textBorderColor: colours.card, textBorderWidth: 3 },
        labelLayout: { hideOverlap: true },
      },
    ];
  });
  const faint = {
    name: isFinal ? "dominated" : "others", type: "scatter", symbolSize: 6, animation: false, z: 2, itemStyle: { color: colours.faint, opacity: 0.5 },
    data: others.slice(-MOST_OTHERS).map((one) => ({ value: [one.means[across], one.means[up]], told: `${short(one.candidate)} · ${one.algorithm}\n${up} ${valueText(up, one.means[up])}\n${across} ${valueText(across, one.means[across])}${one.guardrails_hold ? "" : "\nhurts a guardrail"}` })),
  };
  const edge = goals.length === 2 ? edgeOf(rows.filter((row) => row.onFront && row.holds).map(at), x, y) : [];
  const label = (metric) => ({ color: colours.quiet, fontFamily: colours.font, fontSize: 12, hideOverlap: true, formatter: (value) => valueText(metric, value).replace(/([.]\d*?)0+($| )/, "$1$2").replace(/[.]($| )/, "$1") });
  return {
    textStyle: { fontFamily: colours.font },
    grid: { left: 68, right: 26, top: 46, bottom: 52 },
    legend: { ...legend(colours), data: [...Object.entries(kinds(colours)).filter(([kind]) => rows.some((row) => kindOf(row) === kind)).map(([, look]) => ({ name: look.name, icon: look.symbol, itemStyle: { color: look.ink }, lineStyle: { width: 0 } })), ...(faint.data.length ? [{ name: faint.name, icon: "circle", itemStyle: { color: colours.faint, opacity: 0.5 } }] : [])] },
    tooltip: { trigger: "item", formatter: ({ data }) => data?.told ?? "", ...tooltip(colours) },
    xAxis: axis(colours, `${isUp(x) ? "" : "← "}${across} (${wish(x)})${isUp(x) ? " →" : ""}`, { nameGap: 30, scale: true, axisLabel: label(across) }),
    yAxis: axis(colours, `${up} (${wish(y)})`, { nameGap: 52, scale: true, axisLabel: label(up) }),
    series: [
      faint,
      { type: "line", data: edge, symbol: "none", animation: false, silent: true, z: 1, lineStyle: { color: colours.series[1], width: 1.5, type: "dotted" }, tooltip: { show: false } },
      ...marks,
    ],
  };
}

// The edge of what the front dominates: between two points the corner that is the worse of both ways.
function edgeOf(points, x, y) {
  const sorted = [...points].sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  const worst = (goal, one, other) => (isUp(goal) ? Math.min(one, other) : Math.max(one, other));
  return sorted.flatMap((point, place) => (place === 0 ? [point] : [[worst(x, sorted[place - 1][0], point[0]), worst(y, sorted[place - 1][1], point[1])], point]));
}

export function parallelOption(colours, { goals, rows }) {
  const looks = kinds(colours);
  const ends = goals.map((goal) => {
    const values = rows.map((row) => oriented(goal, row.means[goal.metric].value));
    return { goal, low: Math.min(...values), high: Math.max(...values) };
  });
  const height = (end, row) => (end.high > end.low ? (oriented(end.goal, row.means[end.goal.metric].value) - end.low) / (end.high - end.low) : 0.5);
  const raw = (goal, value) => valueText(goal.metric, isUp(goal) ? value : -value);
  const text = { color: colours.quiet, fontFamily: colours.font, fontSize: 12 };
  const unseen = { type: "scatter", animation: false, silent: true, symbolSize: 1, itemStyle: { color: "transparent" }, tooltip: { show: false } };
  const label = (position) => ({ show: true, position, distance: position === "right" ? 10 : 7, formatter: ({ data }) => data.words, ...text });
  const lanes = [...rows].sort((one, other) => Number(one.isChosen) - Number(other.isChosen)).map((row) => {
    const look = looks[kindOf(row)];
    return {
      name: row.name, type: "line", animation: false, symbol: look.symbol, symbolSize: look.size * 0.62, z: row.isChosen ? 5 : row.isBaseline ? 4 : 3,
      data: ends.map((end) => ({ value: height(end, row), told: `${row.name}${row.isBaseline ? "" : ` · ${short(row.id)}`}\n${goals.map((goal) => `${goal.metric} ${meanText(goal.metric, row.means[goal.metric])}`).join("\n")}` })),
      itemStyle: { color: look.ink },
      lineStyle: { color: look.ink, width: row.isChosen ? 3.5 : 1.75, opacity: row.isChosen || row.isBaseline ? 1 : 0.7, type: row.isBaseline ? "dashed" : row.holds ? "solid" : "dotted" },
      emphasis: { focus: "series" },
    };
  });
  return {
    textStyle: { fontFamily: colours.font },
    grid: { left: 60, right: 78, top: 40, bottom: 64 },
    tooltip: { trigger: "item", formatter: ({ data }) => data?.told ?? "", ...tooltip(colours) },
    xAxis: { type: "category", boundaryGap: false, data: goals.map((goal) => goal.metric), axisTick: { show: false }, axisLine: { show: false }, splitLine: { show: true, lineStyle: { color: colours.line } }, axisLabel: { ...text, color: colours.ink, margin: 30, interval: 0, hideOverlap: false } },
    yAxis: { type: "value", min: 0, max: 1, show: false },
    series: [
      ...lanes,
      { ...unseen, data: ends.map((one) => ({ value: [one.goal.metric, 1], words: one.high > one.low ? raw(one.goal, one.high) : `all ${raw(one.goal, one.high)}` })), label: label("top") },
      { ...unseen, data: ends.filter((one) => one.high > one.low).map((one) => ({ value: [one.goal.metric, 0], words: raw(one.goal, one.low) })), label: label("bottom") },
      { ...unseen, data: beside(rows.map((row) => ({ name: row.name, at: height(ends.at(-1), row) }))).map((one) => ({ value: [ends.at(-1).goal.metric, one.at], words: one.names.join(", ") })), label: label("right") },
    ],
  };
}

// Names beside the last axis; those that would stand on each other share a line.
function beside(marks) {
  const found = [];
  for (const { name, at } of [...marks].sort((one, other) => one.at - other.at)) {
    const before = found.at(-1);
    if (before && at - before.at < 0.07) before.names.push(name);
    else found.push({ at, names: [name] });
  }
  return found;
}

export function volumeOption(colours, front, last) {
  const steps = front.course.map((one) => ({ value: [one.paid_calls, one.volume], told: `${share(one.volume)} dominated\nafter ${count(one.paid_calls)} paid calls\nby ${short(one.candidate)}` }));
  const end = Math.max(last, front.course.at(-1)?.paid_calls ?? 0);
  if (steps.length && end > steps.at(-1).value[0]) steps.push({ value: [end, steps.at(-1).value[1]], told: steps.at(-1).told });
  return {
    textStyle: { fontFamily: colours.font },
    grid: { left: 58, right: 18, top: 20, bottom: 52 },
    tooltip: { trigger: "item", formatter: ({ data }) => data?.told ?? "", ...tooltip(colours) },
    xAxis: axis(colours, "paid calls", { nameGap: 30, min: 0 }),
    yAxis: axis(colours, "share dominated", { nameGap: 42, min: 0, max: 1, axisLabel: { color: colours.quiet, fontFamily: colours.font, fontSize: 12, formatter: (value) => `${Math.round(100 * value)} %` } }),
    series: [{ type: "line", step: "end", data: steps, symbolSize: 6, animation: false, lineStyle: { width: 2.5, color: colours.accent }, itemStyle: { color: colours.accent } }],
  };
}
