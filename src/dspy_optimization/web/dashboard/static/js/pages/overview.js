// What goes on, and what came out.

import { get } from "../api.js";
import { byId, el, render } from "../dom.js";
import { age, count, duration, money, score } from "../format.js";
import { empty, failure, gainText, intervalBar, progressBar, statusTag, verdictTag } from "../parts.js";
import { calmly, follow } from "../stream.js";
import { link } from "../who.js";

const STATUSES = ["running", "queued", "paused", "completed", "failed", "cancelled"];
const SHOWN = 8;
const place = byId("overview");
const heard = new Map();

async function load() {
  try {
    const [active, newest, system] = await Promise.all([
      get("optimizations?status=running&status=queued&status=paused&limit=200"),
      get("optimizations?limit=200"),
      get("system"),
    ]);
    draw(active, newest, system);
  } catch (problem) {
    if (!place.querySelector("[data-key]")) render(place, failure(problem, load));
  }
}

function draw(active, newest, system) {
  if (newest.items.length === 0) {
    render(place, firstSteps(), queue(system));
    return;
  }
  const going = active.items.filter((one) => one.status !== "paused");
  const ended = newest.items.filter((one) => one.verdict !== null).slice(0, SHOWN);
  render(
    place,
    counts(active, newest),
    failed(newest),
    el("section", { class: "stack", "data-key": "running", "aria-labelledby": "running-title" },
      el("div", { class: "row spread" }, el("h2", { id: "running-title" }, "Running now"), el("a", { href: "/optimizations?status=running&status=queued" }, "All that go on")),
      going.length
        ? el("div", { class: "running" }, going.slice(0, 12).map(card))
        : el("p", { class: "card muted" }, "Nothing runs. What was started last is below.")),
    el("div", { class: "columns aside", "data-key": "below" },
      el("section", { class: "card flush", "aria-labelledby": "results-title" },
        el("header", {}, el("h2", { id: "results-title" }, "Newest results"), el("p", {}, "gain on the sealed test split")),
        ended.length ? ended.map(result) : empty("No verdict yet", "It is said when the gate has opened the test split.")),
      queue(system)),
  );
}

function counts(active, newest) {
  const isPart = newest.next_cursor !== null;
  return el("nav", { class: "numbers", "data-key": "counts", "aria-label": "Optimizations by status" },
    STATUSES.map((status) => {
      const exact = ["running", "queued", "paused"].includes(status);
      const from = exact ? active : newest;
      const found = from.items.filter((one) => one.status === status).length;
      const more = exact ? active.next_cursor !== null : isPart;
      return el("a", { href: `/optimizations?status=${status}` }, el("b", {}, count(found), more ? "+" : ""), el("span", {}, statusTag(status)));
    }));
}

function failed(newest) {
  const yesterday = Date.now() - 86_400_000;
  const found = newest.items.filter((one) => one.status === "failed" && Date.parse(one.updated_at) > yesterday);
  if (!found.length) return null;
  return el("a", { class: "notice bad", "data-key": "failed", href: "/optimizations?status=failed" },
    el("b", {}, found.length === 1 ? "One optimization failed in the last day" : `${found.length} optimizations failed in the last day`),
    el("span", {}, found[0].error ?? ""));
}

function card(one) {
  const live = heard.get(one.optimization_id) ?? {};
  const progress = Math.max(one.progress, live.progress ?? 0);
  const best = live.best_score ?? one.best_score;
  return el("a", { class: "run-card", "data-key": one.optimization_id, href: `/optimizations/${one.optimization_id}` },
    el("div", { class: "row spread" }, el("b", {}, one.target.id), statusTag(live.status ?? one.status)),
    el("span", { class: "muted" }, one.algorithms.join(", "), live.phase ? ` · ${live.phase}` : ""),
    el("div", { class: "row" }, progressBar(progress, "Progress"), el("span", {}, `${Math.round(100 * progress)} %`)),
    el("div", { class: "row spread" },
      el("span", {}, el("span", { class: "muted" }, "val "), `${score(one.baseline_score)} → ${score(best)}`),
      el("span", { class: "muted" }, `${count(one.lm_calls)} calls · ${money(one.cost_usd)}`)));
}

function result(one) {
  return el("a", { class: "result-row", "data-key": one.optimization_id, href: `/optimizations/${one.optimization_id}` },
    el("div", { class: "stack" }, el("b", {}, one.target.id), verdictTag(one.verdict)),
    el("div", {}, intervalBar({ value: one.absolute_improvement, interval: one.confidence_interval, verdict: one.verdict }),
      el("small", {}, gainText(one.absolute_improvement, one.confidence_interval))),
    el("small", { class: "muted" }, `${count(one.lm_calls)} calls · ${money(one.cost_usd)}`, el("br"), `${duration(one.elapsed_seconds)}, `, age(one.updated_at)));
}

function queue(system) {
  return el("section", { class: "card", "data-key": "queue", "aria-labelledby": "queue-title" },
    el("header", {}, el("h2", { id: "queue-title" }, "Queue"), el("a", { href: "/system" }, "System")),
    system.queue.lanes.map((lane) =>
      el("div", { class: "stack" },
        el("div", { class: "row spread" }, el("span", {}, `Lane ${lane.lane}`), el("span", { class: "muted" }, `${lane.running} of ${lane.concurrency} run, ${lane.waiting} wait`)),
        progressBar(lane.running / lane.concurrency, `Lane ${lane.lane}: running`))),
    el("p", { class: "hint" }, `At most ${count(system.queue.bound)} may wait. ${system.workers.filter((one) => one.is_alive).length} of ${system.workers.length} known workers are alive.`));
}

function firstSteps() {
  return el("section", { class: "card", "data-key": "first" },
    empty("Nothing was optimized yet", "Three things are needed; the rest has defaults.", link("run", { class: "button primary", href: "/new" }, "Start the first one")),
    el("ol", { class: "steps" },
      el("li", {}, "An agent: its instructions and its fields, as JSON, or one that is registered under Agents."),
      el("li", {}, "Examples with the answers you expect: JSON lines, pasted or uploaded; a hundred is a good start."),
      el("li", {}, "A metric, such as exact_match. The verdict then says whether the agent got better on examples nobody optimized on.")));
}

const later = calmly(load, 2500);
await load();
follow("/api/v1/events", {
  refresh: later,
  onMessage: (message) => {
    heard.set(message.optimization_id, message.data);
    later();
    return false;
  },
});
