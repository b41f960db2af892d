// The agents there are, and a way to add one.

import { get, post } from "../api.js";
import { byId, el, render } from "../dom.js";
import { age } from "../format.js";
import { showErrors } from "../fielderrors.js";
import { empty, failure, table } from "../parts.js";
import { link, needs } from "../who.js";

const place = byId("list");
const SAMPLE = '{\n  "name": "orders",\n  "kind": "predict",\n  "signature": {\n    "instructions": "Which order is the message about?",\n    "inputs": [{"name": "message"}],\n    "outputs": [{"name": "order"}]\n  }\n}';

async function load() {
  try {
    const cursor = new URLSearchParams(location.search).get("cursor");
    const page = await get(`agents?limit=50${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
    if (!page.items.length) {
      render(place, empty("No agent yet", "An agent is registered here, or by the first optimization that brings its configuration.", el("button", { type: "button", class: "primary", onclick: add, ...needs("run") }, "Add agent")));
      return;
    }
    render(place,
      table({
        caption: "Agents",
        columns: [{ label: "Agent" }, { label: "Newest version" }, { label: "Added" }, { label: "Go on" }],
        rows: page.items.map((one) => ({
          key: one.name,
          cells: [
            el("a", { class: "subject", href: `/agents/${encodeURIComponent(one.name)}` }, one.name),
            el("code", {}, one.version.slice(0, 16)),
            age(one.created_at),
            el("span", { class: "row" }, link("run", { class: "button small", href: `/new?agent=${encodeURIComponent(one.name)}` }, "Optimize"), el("a", { class: "button small", href: `/optimizations?target=${encodeURIComponent(one.name)}` }, "Its optimizations")),
          ],
        })),
      }),
      page.next_cursor ? el("div", { class: "pager" }, el("a", { class: "button small", href: `?cursor=${encodeURIComponent(page.next_cursor)}` }, "Next page")) : null);
  } catch (problem) {
    render(place, failure(problem, load));
  }
}

function add() {
  const text = el("textarea", { id: "config", "data-field": "agent", spellcheck: "false" }, SAMPLE);
  const problems = el("div");
  const form = el("form", {},
    el("h2", {}, "Add agent"),
    problems,
    el("div", { class: "field" }, el("label", { for: "config" }, "Configuration (JSON)"), text, el("small", {}, "The same content again is the same version.")),
    el("div", { class: "row" }, el("button", { class: "primary" }, "Add"), el("button", { type: "button", onclick: () => dialog.close() }, "Cancel")));
  const dialog = el("dialog", { class: "wide", "aria-label": "Add agent" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const made = await post("agents", JSON.parse(text.value));
      location.assign(`/agents/${encodeURIComponent(made.name)}`);
    } catch (problem) {
      showErrors(form, problem.errors ? problem : { title: "No JSON", detail: problem.message, errors: [{ field: "agent", message: problem.message }] }, problems);
    }
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

byId("add").addEventListener("click", add);
await load();
