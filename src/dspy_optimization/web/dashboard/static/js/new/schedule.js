// The same request, again and again.

import { post } from "../api.js";
import { byId, el } from "../dom.js";
import { needs } from "../who.js";

const TIMES = [
  ["0 3 * * *", "every night at 3:00"],
  ["0 3 * * 1", "Mondays at 3:00"],
  ["0 3 1 * *", "the first of the month at 3:00"],
  ["0 */6 * * *", "every six hours"],
  ["0 * * * *", "every hour"],
];

export function scheduleFields() {
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const zones = [...new Set(["UTC", here, ...(Intl.supportedValuesOf?.("timeZone") ?? [])])];
  const field = (id, label, name, value, hint, list) =>
    el("div", { class: "field" }, el("label", { for: id }, label),
      el("input", { id, "data-field": name, value, list, autocomplete: "off", spellcheck: "false" }),
      hint ? el("small", {}, hint) : null);
  const node = el("details", { id: "repeat", open: location.hash === "#repeat" },
    el("summary", {}, "Repeat on a schedule"),
    el("div", { class: "stack" },
      field("schedule-name", "Name of the schedule", "name", "", "No other schedule has it."),
      field("schedule-cron", "When (cron)", "cron", "0 3 * * *", "minute, hour, day of the month, month, day of the week", "schedule-times"),
      el("datalist", { id: "schedule-times" }, TIMES.map(([value, label]) => el("option", { value }, label))),
      field("schedule-zone", "On the clocks of", "timezone", here, null, "schedule-zones"),
      el("datalist", { id: "schedule-zones" }, zones.map((value) => el("option", { value }))),
      el("button", { type: "button", id: "keep", disabled: true, ...needs("run") }, "Add the schedule"),
      el("p", { class: "hint" }, "It is estimated first, as any other. A registered agent is taken in its newest version at each time, unless a version is named; a kept dataset stays the version it is.")));
  // Enter in these fields must not start an optimization now.
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
    event.preventDefault();
    byId("keep").click();
  });
  return node;
}

export async function addSchedule(request) {
  const value = (id) => byId(id).value.trim();
  try {
    await post("schedules", { name: value("schedule-name"), cron: value("schedule-cron"), timezone: value("schedule-zone") || "UTC", request });
  } catch (problem) {
    // The fields of the form are those of the request itself.
    const plain = (text) => (text ?? "").replace(/^request(\.|: )/, "");
    problem.detail = plain(problem.detail);
    problem.errors = problem.errors?.map((one) => ({ ...one, field: plain(one.field) })) ?? [];
    throw problem;
  }
  location.assign("/schedules");
}
