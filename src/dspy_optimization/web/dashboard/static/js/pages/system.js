// Queue, workers, estimates, health and GPUs. Asked again every few seconds: nothing of it comes as an event.

import { get, patch } from "../api.js";
import { byId, el, on, render } from "../dom.js";
import { age, bytes, count } from "../format.js";
import { empty, failure, progressBar, table, tag, toast } from "../parts.js";
import { calmly } from "../stream.js";
import { needs, why } from "../who.js";

const EVERY_MILLISECONDS = 4000;
const place = byId("system");

async function load() {
  try {
    const [system, ready, gpus] = await Promise.all([
      get("system"),
      get("/ready").catch((problem) => ({ ready: false, checks: { service: problem.message } })),
      get("/gpu-status").catch(() => null),
    ]);
    render(place,
      el("div", { class: "columns two" }, lanes(system.queue), health(ready, system.calibration)),
      workers(system.workers),
      gpuCard(gpus));
  } catch (problem) {
    if (!place.querySelector("section")) render(place, failure(problem, load));
  }
}

function lanes(queue) {
  return el("section", { class: "card", "aria-label": "Queue" },
    el("header", {}, el("h2", {}, "Queue"), el("p", {}, `at most ${count(queue.bound)} may wait`)),
    queue.lanes.map((lane) =>
      el("form", { class: "stack", "data-key": lane.lane, "data-lane": lane.lane },
        el("div", { class: "row spread" }, el("h3", {}, `Lane ${lane.lane}`), el("span", {}, `${lane.running} run, ${lane.waiting} wait`)),
        progressBar(lane.running / lane.concurrency, `Lane ${lane.lane}: running of ${lane.concurrency}`),
        el("div", { class: "row" },
          el("label", { for: `lane-${lane.lane}` }, "At once at most"),
          el("input", { id: `lane-${lane.lane}`, name: "concurrency", type: "number", min: "1", max: "10000", required: true, value: lane.concurrency, style: { width: "96px" }, ...needs("administer") }),
          el("label", { for: `lane-${lane.lane}-worker` }, "in each worker at most"),
          el("input", { id: `lane-${lane.lane}-worker`, name: "worker_concurrency", type: "number", min: "1", max: "10000", placeholder: "any", value: lane.worker_concurrency, style: { width: "96px" }, ...needs("administer") }),
          el("button", { class: "small", ...needs("administer") }, "Change")))),
    queue.partitions.length ? el("h3", {}, "Algorithms of which not all run at once") : null,
    queue.partitions.map((one) =>
      el("form", { class: "stack", "data-key": `partition-${one.partition}`, "data-partition": one.partition },
        el("div", { class: "row spread" }, el("h4", {}, one.partition), el("span", {}, `${one.running} run, ${one.waiting} wait`)),
        progressBar(one.running / one.concurrency, `${one.partition}: running of ${one.concurrency}`),
        el("div", { class: "row" },
          el("label", { for: `partition-${one.partition}` }, "At once at most"),
          el("input", { id: `partition-${one.partition}`, name: "concurrency", type: "number", required: true, min: "1", max: "10000", value: one.concurrency, style: { width: "96px" }, ...needs("administer") }),
          el("button", { class: "small", ...needs("administer") }, "Change")))),
    why("administer"));
}

function health(ready, calibration) {
  return el("section", { class: "card", "aria-label": "Health and estimates" },
    el("header", {}, el("h2", {}, "This process"), ready.ready ? tag("good", "✓", "ready") : tag("bad", "✕", "not ready")),
    el("dl", { class: "facts" }, Object.entries(ready.checks).map(([name, word]) => [el("dt", {}, name), el("dd", {}, word === "ok" ? "✓ ok" : `✕ ${word}`)])),
    el("hr"),
    el("h3", {}, "How good estimates of time were"),
    calibration.n === 0
      ? el("p", { class: "muted" }, "No ended optimization to compare with yet.")
      : el("p", {}, `Over ${calibration.n} ended: half of them were off by less than ${Math.round(calibration.median_absolute_percentage_error)} %; ${Math.round(100 * calibration.share_within_half)} % took between half and twice what was told.`));
}

function workers(list) {
  return el("section", { class: "card flush", "aria-label": "Workers" },
    el("header", {}, el("h2", {}, "Workers"), el("p", {}, "a worker whose lease is over is replaced")),
    list.length
      ? table({
          caption: "Workers",
          columns: [{ label: "Worker" }, { label: "State" }, { label: "Lanes" }, { label: "Running", number: true }, { label: "Version" }, { label: "Since" }, { label: "Lease ends" }],
          rows: list.map((one) => ({
            key: one.id,
            cells: [
              el("span", {}, one.host === null ? el("code", {}, one.id.slice(0, 13)) : [el("b", {}, one.host), ` · process ${one.process_id}`], one.is_this ? el("small", { class: "muted" }, " (this one)") : null),
              one.is_alive ? tag("good", "✓", "alive") : tag("bad", "✕", "gone"), one.lanes.join(", "), count(one.running), one.version, age(one.started_at), age(one.expires_at),
            ],
          })),
        })
      : empty("No worker", "Nothing is worked on until one starts: dspy-opt serve --role worker."));
}

function gpuCard(gpus) {
  if (!gpus) return null;
  return el("section", { class: "card", "aria-label": "GPUs" },
    el("header", {}, el("h2", {}, "GPUs of the machine that answers")),
    gpus.available
      ? gpus.devices.map((one) =>
          el("div", { class: "stack", "data-key": String(one.index) },
            el("div", { class: "row spread" }, el("h3", {}, `${one.index}: ${one.name}`), el("span", { class: "muted" }, `${bytes(one.memory_used_bytes)} of ${bytes(one.memory_total_bytes)}${one.utilization === null ? "" : ` · ${Math.round(100 * one.utilization)} % busy`}${one.temperature_celsius === null ? "" : ` · ${one.temperature_celsius} °C`}`)),
            progressBar(one.memory_used_bytes / one.memory_total_bytes, `Memory of GPU ${one.index}`)))
      : el("p", { class: "muted" }, `None: ${gpus.reason ?? "no GPU was found"}. The lane gpu waits for a worker that has one.`));
}

on(place, "submit", "form", async (form, event) => {
  event.preventDefault();
  try {
    const { lane, partition } = form.dataset;
    const way = lane ? `system/lanes/${lane}` : `system/partitions/${encodeURIComponent(partition)}`;
    const wanted = Object.fromEntries([...form.querySelectorAll("input")].map((field) => [field.name, field.value === "" ? null : Number(field.value)]));
    const changed = await patch(way, wanted);
    const each = changed.worker_concurrency ? `, ${changed.worker_concurrency} in each worker` : "";
    toast(`${lane ? `Lane ${lane}` : partition}: ${changed.concurrency} at once${each} from now on.`);
  } catch (problem) {
    toast(problem.message);
  }
  load();
});

const later = calmly(load, EVERY_MILLISECONDS);
await load();
setInterval(() => document.hidden || later(), EVERY_MILLISECONDS);
