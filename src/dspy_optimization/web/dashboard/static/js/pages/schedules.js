// Optimizations that recur: when each is due next, what came of the last time, and what may be asked of it.

import { get, post, remove } from "../api.js";
import { byId, el, on, render } from "../dom.js";
import { age, when } from "../format.js";
import { confirm, copyBlock, empty, failure, statusTag, table, tag, toast } from "../parts.js";
import { calmly, follow } from "../stream.js";
import { link, needs } from "../who.js";

const EVERY_MILLISECONDS = 15_000; // a due time that makes nothing tells no event
const place = byId("list");
// As the clocks of its place show it; by those of the browser where that place is not known.
function clock(text, zone) {
  const shape = { dateStyle: "medium", timeStyle: "short" };
  try {
    return new Intl.DateTimeFormat(undefined, { ...shape, timeZone: zone }).format(new Date(text));
  } catch {
    return when(text);
  }
}
const path = (id) => `schedules/${encodeURIComponent(id)}`;
let shown = [];

async function load() {
  try {
    const cursor = new URLSearchParams(location.search).get("cursor");
    draw(await get(`schedules?limit=50${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`));
  } catch (problem) {
    if (problem.status || !place.querySelector("table")) render(place, failure(problem, load));
  }
}

function draw(page) {
  shown = page.items;
  if (!page.items.length) {
    render(place, empty("Nothing recurs yet", "Fill in an optimization as usual and say when it is to be repeated.", link("run", { class: "button primary", href: "/new#repeat" }, "New schedule")));
    return;
  }
  render(place,
    table({
      caption: "Schedules",
      columns: [{ label: "Schedule" }, { label: "Next due" }, { label: "Last outcome" }, { label: "Actions" }],
      rows: page.items.map((one) => ({
        key: one.id,
        cells: [
          el("div", { class: "stack tight" }, el("b", { class: "break" }, one.name), el("span", { class: "row" }, el("code", {}, one.cron), el("small", { class: "muted" }, one.timezone))),
          one.is_paused ? tag("unsure", "❚❚", "paused") : one.next_due_at ? el("div", { class: "stack tight" }, age(one.next_due_at), el("small", { class: "muted" }, clock(one.next_due_at, one.timezone))) : tag("bad", "✕", "never again"),
          outcome(one),
          actions(one),
        ],
      })),
    }),
    page.next_cursor ? el("div", { class: "pager" }, el("a", { class: "button small", href: `?cursor=${encodeURIComponent(page.next_cursor)}`, rel: "next" }, "Next page")) : null);
}

function outcome(one) {
  if (!one.last_optimization_id && !one.last_error) return el("span", { class: "muted" }, "not due yet");
  return el("div", { class: "stack tight" },
    one.last_optimization_id
      ? el("span", { class: "row" }, el("a", { href: `/optimizations/${one.last_optimization_id}` }, "Last optimization"), statusTag(one.last_optimization_status), el("small", { class: "muted" }, age(one.last_fired_at)))
      : null,
    one.last_error ? el("div", { class: "stack tight" }, tag("unsure", "!", one.last_due_at && one.last_due_at === one.next_due_at ? "waits" : "made nothing"), el("small", { class: "break" }, one.last_error)) : null);
}

function actions(one) {
  const button = (action, label, danger = false) =>
    el("button", { type: "button", class: danger ? "small danger" : "small", "data-action": action, "data-id": one.id, "aria-label": `${label}: ${one.name}`, ...needs("run") }, label);
  return el("span", { class: "pad" },
    el("button", { type: "button", class: "small", "data-action": "show", "data-id": one.id, "aria-label": `Details: ${one.name}` }, "Details"),
    button("fire", "Fire now"),
    one.is_paused || !one.next_due_at ? button("resume", "Resume") : button("pause", "Pause"),
    button("remove", "Delete", true));
}

async function details(one) {
  const found = await get(path(one.id));
  const close = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = el("dialog", { class: "wide", "aria-label": `Schedule ${one.name}` },
    el("form", { method: "dialog" },
      el("h2", { class: "break" }, found.name),
      el("dl", { class: "facts" },
        el("dt", {}, "Due"), el("dd", {}, el("code", {}, found.cron), ` on the clocks of ${found.timezone}`),
        el("dt", {}, "Next times"), el("dd", {}, found.upcoming.length ? el("ul", {}, found.upcoming.map((time) => el("li", {}, clock(time, found.timezone)))) : found.is_paused ? "none while it is paused" : "none"),
        el("dt", {}, "Added"), el("dd", {}, when(found.created_at))),
      copyBlock("What it hands in (the body of POST /api/v1/optimize)", JSON.stringify(found.request, null, 2)),
      el("div", { class: "row" }, close)));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  close.focus();
}

const ACTIONS = {
  show: details,
  fire: async (one) => {
    if (!(await confirm({ title: `Fire ${one.name} now?`, text: "It is handed in as if it were due. When it is due next does not change.", action: "Fire it" }))) return;
    const made = await post(`${path(one.id)}/fire`);
    location.assign(`/optimizations/${made.optimization_id}`);
  },
  pause: async (one) => {
    await post(`${path(one.id)}/pause`);
    toast("Paused. What it made goes on.");
  },
  resume: async (one) => {
    const now = await post(`${path(one.id)}/resume`);
    toast(`Due next: ${clock(now.next_due_at, now.timezone)}.`);
  },
  remove: async (one) => {
    if (!(await confirm({ title: `Delete ${one.name}?`, text: "It recurs no more. The optimizations it made stay.", action: "Delete it", danger: true }))) return;
    await remove(path(one.id));
    toast("Deleted.");
  },
};

on(place, "click", "[data-action]", async (button) => {
  const one = shown.find(({ id }) => id === button.dataset.id);
  if (!one) return;
  try {
    await ACTIONS[button.dataset.action](one);
  } catch (problem) {
    toast(problem.message);
  }
  if (button.dataset.action !== "show") load();
});

const later = calmly(load, 2500);
await load();
follow("/api/v1/events", { refresh: later, onMessage: () => void later() });
setInterval(() => document.hidden || later(), EVERY_MILLISECONDS);
