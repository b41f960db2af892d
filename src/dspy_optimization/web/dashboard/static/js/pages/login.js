// A key, kept as a cookie that no script can read.

import { get, post, remove } from "../api.js";
import { byId, el, render } from "../dom.js";
import { failure, notice } from "../parts.js";

const place = byId("login");

// Only a page of this service: an address of elsewhere is none of ours.
function next() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "/";
  const address = new URL(wanted, location.origin);
  return wanted.startsWith("/") && address.origin === location.origin ? address.pathname + address.search + address.hash : "/";
}

async function load() {
  try {
    const me = await get("me");
    if (!me.requires_key) {
      render(place, notice("good", "No key is needed", "Whoever reaches this service is its local administrator."), el("a", { class: "button primary", href: next() }, "Go on"));
      return;
    }
    render(place, notice("good", `You are ${me.name}`, `Role: ${me.role}.`),
      el("div", { class: "row" }, el("a", { class: "button primary", href: next() }, "Go on"), el("button", { type: "button", onclick: leave }, "Log out")));
  } catch (problem) {
    if (problem.status === 401) ask();
    else render(place, failure(problem, load));
  }
}

async function leave() {
  await remove("login");
  load();
}

function ask(problem) {
  const key = el("input", { id: "key", type: "password", autocomplete: "current-password", required: true, spellcheck: "false", placeholder: "dso_…", "aria-invalid": problem ? "true" : null });
  const form = el("form", { class: "card" },
    problem ? notice("bad", problem.title, problem.message) : null,
    el("div", { class: "field" }, el("label", { for: "key" }, "API key"), key, el("small", {}, "An administrator makes one with dspy-opt keys create. It is kept as a cookie no script can read.")),
    el("button", { class: "primary" }, "Log in"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await post("login", { key: key.value.trim() });
      location.assign(next());
    } catch (refused) {
      ask(refused);
    }
  });
  place.replaceChildren(form);
  place.removeAttribute("aria-busy");
  key.focus();
}

await load();
