// How a search that evolves candidates went: what its ways to make them earned, how far its model was trusted.

import { get } from "../api.js";
import { el } from "../dom.js";
import { count, score, share } from "../format.js";
import { table } from "../parts.js";

const MOST = 1000;
const isRound = ({ type, data }) => type === "progress" && data.phase === "round" && typeof data.surrogate_trust === "number" && data.operators !== null && typeof data.operators === "object";

export class Rounds {
  constructor(run) {
    this.run = run;
    this.found = new Map();
    this.isAsked = false;
  }

  // Those before the newest events are asked for once, and only where an algorithm tells of rounds.
  async load() {
    if (this.isAsked || !this.run.detail.algorithms.includes("genetic")) return;
    this.isAsked = true;
    const page = await get(`${this.run.path}/log?sort=-id&limit=${MOST}`);
    this.take(page.items);
  }

  take(events) {
    for (const one of events) if (isRound(one)) this.found.set(`${one.data.algorithm}/${one.data.iteration}`, one.data);
  }

  view() {
    this.take(this.run.events.items);
    const told = [...this.found.values()].sort((one, other) => one.iteration - other.iteration);
    if (!told.length) return null;
    return [...new Set(told.map((one) => one.algorithm))].map((name) => card(name, told.filter((one) => one.algorithm === name)));
  }
}

function card(name, told) {
  const last = told.at(-1);
  const ways = Object.entries(last.operators).filter(([, way]) => way?.tries > 0).sort(([, one], [, other]) => other.tries - one.tries);
  return el("section", { class: "card", "data-key": `rounds-${name}`, "aria-label": `How ${name} went` },
    el("header", {}, el("h2", {}, "How the search went"), el("p", {}, `${name}, round ${last.iteration}`)),
    el("p", { class: "hint" }, `${count(last.candidates)} candidates met the agent in ${count(last.evaluations)} runs on val; ${last.population > 0 ? `${count(last.population)} lived on a model of it, at no cost` : "none lived on a model of it in this round"}. ${count(last.instructions)} instruction texts could be combined. What the model expects is never a score.`),
    ways.length ? table({
      caption: "Ways to make candidates", cards: false,
      columns: [{ label: "Way" }, { label: "Tries", number: true }, { label: "Wins", number: true }, { label: "Wins a try", number: true }],
      rows: ways.map(([way, { tries, wins }]) => ({ key: way, cells: [way, count(tries), score(wins), share(wins / tries)] })),
    }) : null,
    el("h3", {}, "How far the model was trusted"),
    table({
      caption: "Trust in the model: how well it ranks candidates that it has not seen", cards: false,
      columns: [{ label: "Rounds" }, { label: "Trust", number: true }, { label: "Why not more" }],
      rows: spans(told).map((one) => ({ key: String(one.first), cells: [one.first === one.last ? String(one.first) : `${one.first} to ${one.last}`, one.low === one.high ? share(one.low) : `${share(one.low)} to ${share(one.high)}`, el("span", { class: "break" }, one.doubt ?? "nothing spoke against it")] })),
    }));
}

// Rounds in a row with the same reason, whatever its numbers.
function spans(told) {
  const kind = (doubt) => (doubt ?? "").replace(/[-+]?[\d.]+|nan/g, "");
  const found = [];
  for (const { iteration, surrogate_trust: trust, surrogate_doubt: doubt } of told) {
    const before = found.at(-1);
    if (before && kind(before.doubt) === kind(doubt) && (before.doubt === null) === (doubt === null)) Object.assign(before, { last: iteration, low: Math.min(before.low, trust), high: Math.max(before.high, trust), doubt });
    else found.push({ first: iteration, last: iteration, low: trust, high: trust, doubt });
  }
  return found;
}
