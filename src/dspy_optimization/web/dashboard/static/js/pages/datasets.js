// The datasets there are, and a way to add one.

import { all, get, post } from "../api.js";
import { byId, el, render } from "../dom.js";
import { examplesField } from "../examplesfield.js";
import { showErrors } from "../fielderrors.js";
import { age, count } from "../format.js";
import { empty, failure, table } from "../parts.js";
import { link, needs } from "../who.js";

const place = byId("list");

async function load() {
  try {
    const cursor = new URLSearchParams(location.search).get("cursor");
    draw(await get(`datasets?limit=25${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`));
  } catch (problem) {
    render(place, failure(problem, load));
  }
}

function draw(page) {
  if (!page.items.length) {
    render(place, empty("No dataset yet", "Examples with the answers you expect are kept once and split once.", el("button", { type: "button", class: "primary", onclick: add, ...needs("run") }, "Add dataset")));
    return;
  }
  render(place,
    table({
      caption: "Datasets",
      columns: [{ label: "Dataset" }, { label: "Version" }, { label: "Train", number: true }, { label: "Val", number: true }, { label: "Test, sealed", number: true }, { label: "Added" }, { label: "Go on" }],
      rows: page.items.map((one) => ({
        key: one.id,
        cells: [
          el("a", { class: "subject", href: `/datasets/${encodeURIComponent(one.id)}` }, one.name), el("code", {}, one.id.slice(0, 12)),
          count(one.n_train), count(one.n_val), count(one.n_test), age(one.created_at),
          link("run", { class: "button small", href: `/new?dataset=${encodeURIComponent(one.id)}` }, "Use it"),
        ],
      })),
    }),
    page.next_cursor ? el("div", { class: "pager" }, el("a", { class: "button small", href: `?cursor=${encodeURIComponent(page.next_cursor)}` }, "Next page")) : null);
}

async function add() {
  const agents = await all("agents").catch(() => []);
  const examples = examplesField({ id: "examples", field: "examples dataset" });
  const problems = el("div");
  const field = (id, label, name, placeholder, hint) => el("div", { class: "field" }, el("label", { for: id }, label), el("input", { id, name, "data-field": name, placeholder, autocomplete: "off" }), hint ? el("small", {}, hint) : null);
  const form = el("form", {},
    el("h2", {}, "Add dataset"), problems,
    field("name", "Name", "name", "examples"),
    examples.node,
    el("div", { class: "grid-fields" },
      el("div", { class: "field" }, el("label", { for: "agent" }, "Fields as the agent says"), el("select", { id: "agent", name: "agent", "data-field": "agent" }, el("option", { value: "" }, "say them here"), agents.map((one) => el("option", { value: one.name }, one.name)))),
      field("inputs", "Inputs", "inputs", "question, context"), field("expected", "Expected", "expected", "answer"),
      field("cluster", "Belong together by", "cluster", "none"), field("seed", "Seed of the split", "seed", "0")),
    el("div", { class: "row" }, el("button", { class: "primary" }, "Add"), el("button", { type: "button", onclick: () => dialog.close() }, "Cancel")));
  const dialog = el("dialog", { class: "wide", "aria-label": "Add dataset" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const value = (name) => form.elements[name].value.trim();
    const names = (text) => text.split(",").map((one) => one.trim()).filter(Boolean);
    try {
      const body = { examples: examples.read() };
      for (const name of ["name", "agent", "cluster"]) if (value(name)) body[name] = value(name);
      for (const name of ["inputs", "expected"]) if (value(name)) body[name] = names(value(name));
      if (value("seed")) body.seed = Number(value("seed"));
      const made = await post("datasets", body);
      location.assign(`/datasets/${made.id}`);
    } catch (problem) {
      showErrors(form, problem.errors ? problem : { title: "The examples cannot be read", detail: problem.message, errors: [{ field: "examples", message: problem.message }] }, problems);
    }
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

byId("add").addEventListener("click", add);
await load();
