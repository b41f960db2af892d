// The language model of every role, and whether it answers.

import { get, post } from "../api.js";
import { byId, el, on, render } from "../dom.js";
import { failure, notice, tag } from "../parts.js";
import { needs } from "../who.js";

const ROLE = {
  task: "answers examples, as the agent",
  reflection: "reads what went wrong and proposes instructions",
  judge: "grades answers where a metric asks it to",
};
const place = byId("models");

async function load() {
  try {
    const { items } = await get("models");
    render(place, items.map((one) =>
      el("section", { class: "card", "data-key": one.role, "aria-label": one.role },
        el("div", { class: "row spread" }, el("h2", {}, one.role), one.priced ? tag("", "$", "price known") : tag("unsure", "?", "price unknown", "Dollar caps are refused for it.")),
        el("p", { class: "hint" }, ROLE[one.role] ?? ""),
        el("dl", { class: "facts" },
          el("dt", {}, "Model"), el("dd", { class: "mono" }, one.model),
          one.base_url ? [el("dt", {}, "Server"), el("dd", { class: "mono" }, one.base_url)] : null,
          el("dt", {}, "At once"), el("dd", {}, one.max_concurrency === null ? "as many as the default allows" : String(one.max_concurrency))),
        el("div", { class: "row" }, el("button", { type: "button", "data-test": one.role, ...needs("run") }, "Test"), el("span", { class: "hint" }, "asks one short question; costs one call")),
        el("div", { id: `test-${one.role}`, role: "status", "data-own": "test" }))));
  } catch (problem) {
    render(place, failure(problem, load));
  }
}

on(place, "click", "[data-test]", async (button) => {
  const told = byId(`test-${button.dataset.test}`);
  button.disabled = true;
  told.replaceChildren(el("div", { class: "skeleton line" }));
  try {
    const answer = await post(`models/${button.dataset.test}/test`);
    told.replaceChildren(answer.ok ? notice("good", `✓ It answered in ${answer.latency_seconds.toFixed(2)} s`, answer.answer || "with an empty text") : notice("bad", "✕ It did not answer", answer.error));
  } catch (problem) {
    told.replaceChildren(notice("bad", problem.title, problem.message));
  }
  button.disabled = false;
});

await load();
