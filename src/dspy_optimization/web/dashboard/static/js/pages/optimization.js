// One optimization: its head, its result, and its tabs; that of the front is for several goals. What is shown is kept
// while it changes.

import { get } from "../api.js";
import { byId, el, on, render } from "../dom.js";
import { age, short } from "../format.js";
import { failure, statusTag, toast } from "../parts.js";
import { act, actionButtons } from "../run/actions.js";
import { Candidates } from "../run/candidates.js";
import { drawConfig } from "../run/config.js";
import { Events } from "../run/events.js";
import { Examples } from "../run/examples.js";
import { Front } from "../run/front.js";
import { Progress } from "../run/progress.js";
import { resultView } from "../run/result.js";
import { calmly, follow } from "../stream.js";
import { link } from "../who.js";

const TABS = ["progress", "front", "candidates", "examples", "events", "config"];
const TELLING = new Set(["trial.recorded", "phase.started", "algorithm.started", "algorithm.ended", "verdict", "optimization.completed", "optimization.cancelled", "optimization.failed"]);
const id = document.body.dataset.subject;

class Run {
  path = `optimizations/${id}`;
  detail = null;
  status = null;
  progress = new Progress(this, byId("panel-progress"));
  front = new Front(this, byId("panel-front"));
  candidates = new Candidates(this, byId("panel-candidates"));
  examples = new Examples(this, byId("panel-examples"));
  events = new Events(this, byId("panel-events"));
  tab = "progress";
  isStale = true; // whether there is more to draw than numbers

  async load() {
    try {
      [this.detail, this.status] = await Promise.all([get(this.path), get(`${this.path}/status`)]);
    } catch (problem) {
      if (!this.detail) this.fail(problem);
      return;
    }
    this.drawHead();
    byId("tab-front").hidden = !this.front.isShown;
    if (this.tab === "front" && !this.front.isShown) choose("progress");
    render(byId("result"), resultView(this.detail, this.status));
    if (this.isStale || !this.progress.curve) {
      this.isStale = false;
      await Promise.all([this.progress.load(), this.loadTab()]);
    } else this.progress.draw();
  }

  fail(problem) {
    for (const name of TABS) byId(`panel-${name}`).remove();
    byId("tabs").remove();
    render(byId("result"), el("div", { class: "card" }, failure(problem, () => location.reload())));
  }

  async loadTab() {
    if (this.tab === "front") await this.front.load();
    if (this.tab === "candidates") await this.candidates.load();
    if (this.tab === "examples") await this.examples.load();
    if (this.tab === "config") drawConfig(this, byId("panel-config"));
  }

  drawHead() {
    const { detail } = this;
    document.title = `${detail.target.id}: ${detail.status} · DSPy Optimization`;
    render(byId("head"),
      el("div", {},
        el("h1", {}, detail.target.id),
        el("div", { class: "row" }, statusTag(detail.status), el("span", { class: "muted" }, detail.algorithms.join(", ")), el("span", { class: "muted" }, age(detail.created_at)), el("code", { class: "muted", title: id }, short(id, 13)))),
      el("div", { class: "actions" },
        actionButtons(detail.status),
        link("run", { class: "button", href: `/new?from=${id}` }, "Ask again, changed"),
        link("run", { class: "button", href: `/new?from=${id}#repeat` }, "Repeat on a schedule"),
        detail.verdict ? null : el("a", { class: "button", href: detail.links.report, target: "_blank", rel: "noopener" }, "Report")));
  }

  refresh = calmly(() => this.load(), 1500);
}

const run = new Run();

function choose(name, keep = true) {
  run.tab = TABS.includes(name) ? name : "progress";
  for (const one of TABS) {
    const tab = byId(`tab-${one}`);
    const isIt = one === run.tab;
    tab.setAttribute("aria-selected", String(isIt));
    tab.tabIndex = isIt ? 0 : -1;
    byId(`panel-${one}`).hidden = !isIt;
  }
  if (keep) history.replaceState(null, "", `#${run.tab}`);
  if (run.detail) run.loadTab();
}

on(byId("tabs"), "click", "[role=tab]", (tab) => choose(tab.id.slice(4)));
on(byId("tabs"), "keydown", "[role=tab]", (tab, event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const shown = TABS.filter((name) => !byId(`tab-${name}`).hidden);
  const next = shown[(shown.indexOf(run.tab) + step + shown.length) % shown.length];
  choose(next);
  byId(`tab-${next}`).focus();
});
addEventListener("hashchange", () => choose(location.hash.slice(1), false));
on(byId("head"), "click", "[data-action]", (button) => act(run, button.dataset.action));

choose(location.hash.slice(1), false);
await run.load();
if (run.detail) {
  const news = calmly(() => run.events.fresh(), 1000);
  const state = run.detail.status;
  follow(`/api/v1/optimizations/${id}/events`, {
    isDone: () => ["completed", "failed", "cancelled"].includes(run.detail.status),
    refresh: () => {
      run.isStale = true;
      run.refresh();
      news();
    },
    onMessage: (message) => {
      if (message.data.event === "state") run.events.begin(message.id).catch((problem) => toast(problem.message));
      else news();
      if (TELLING.has(message.data.event) || message.data.status !== run.detail.status) run.isStale = true;
      if (message.data.event !== "state") run.refresh();
      const ends = message.type !== "progress";
      if (ends && state !== message.data.status) run.refresh();
      return ends;
    },
  });
}
