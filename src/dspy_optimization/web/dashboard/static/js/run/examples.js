// What the chosen candidate changed, example by example, on val. Those of test are shown to nobody.

import { get } from "../api.js";
import { el, on, render } from "../dom.js";
import { score } from "../format.js";
import { empty, failure, pairs, tag } from "../parts.js";

const CHANGE = { worse: ["bad", "▼", "worse"], better: ["good", "▲", "better"], same: ["", "=", "same"] };

export class Examples {
  constructor(run, panel) {
    this.run = run;
    this.panel = panel;
    this.items = [];
    this.next = null;
    this.isLoaded = false;
    this.kind = "";
    on(panel, "click", "[data-more]", () => this.more());
    on(panel, "click", "[data-kind]", (button) => {
      this.kind = button.dataset.kind;
      this.draw();
    });
  }

  async load() {
    if (this.items.length > 25) return; // somebody reads further down
    try {
      const page = await get(`${this.run.path}/examples?limit=25`);
      this.items = page.items;
      this.next = page.next_cursor;
      this.isLoaded = true;
      this.draw();
    } catch (problem) {
      if (!this.isLoaded) render(this.panel, failure(problem, () => this.load()));
    }
  }

  async more() {
    const page = await get(`${this.run.path}/examples?limit=50&cursor=${encodeURIComponent(this.next)}`);
    this.items.push(...page.items);
    this.next = page.next_cursor;
    this.draw();
  }

  draw() {
    if (!this.items.length) {
      render(this.panel, el("div", { class: "card" }, empty("No example changed", "Either nothing was measured beside the baseline yet, or both candidates do the same on every val example.")));
      return;
    }
    const shown = this.items.filter((one) => !this.kind || one.change === this.kind);
    const worse = this.items.filter((one) => one.change === "worse").length;
    render(this.panel,
      el("section", { class: "card flush", "aria-label": "Examples" },
        el("header", {},
          el("div", { class: "stack" }, el("h2", {}, "Val examples that changed"), el("p", { class: "hint" }, `Regressions first: ${worse} worse, ${this.items.length - worse} better${this.next ? ", more not loaded" : ""}.`)),
          el("div", { class: "segments", role: "group", "aria-label": "Which" },
            [["", "all"], ["worse", "▼ worse"], ["better", "▲ better"]].map(([kind, label]) => el("button", { type: "button", "data-kind": kind, "aria-pressed": String(kind === this.kind) }, label)))),
        shown.length ? shown.map(example) : empty("None of these", "No loaded example is of this kind."),
        this.next ? el("div", { class: "pager" }, el("button", { type: "button", "data-more": true }, "Load more")) : null));
  }
}

function example(one) {
  const [kind, sign, word] = CHANGE[one.change];
  return el("article", { class: "example", "data-key": one.example_id },
    el("div", { class: "row" }, tag(kind, sign, word), el("code", { class: "muted" }, one.example_id.slice(0, 10))),
    el("div", { class: "stack" }, pairs(one.inputs)),
    el("div", { class: "sides" },
      el("div", { class: "side-box" }, el("b", {}, "Expected"), pairs(one.expected)),
      side("Baseline", one.baseline),
      side("Optimized", one.optimized)));
}

function side(name, outcome) {
  return el("div", { class: "side-box" },
    el("div", { class: "row spread" }, el("b", {}, name), el("span", {}, `score ${score(outcome.score)}`)),
    outcome.failure ? el("span", { class: "field-error" }, outcome.failure) : pairs(outcome.outputs));
}
