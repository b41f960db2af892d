// What was asked for, and how to ask for it again from elsewhere.

import { el, render } from "../dom.js";
import { count, duration, money, when } from "../format.js";
import { copyBlock } from "../parts.js";
import { asCli, asCurl, asSdk } from "../request.js";

export function drawConfig(run, panel) {
  const { detail } = run;
  const { request } = detail;
  const body = bodyOf(detail);
  const limits = request.constraints.limits;
  render(panel,
    el("div", { class: "columns two" },
      el("section", { class: "card", "aria-label": "Configuration" },
        el("h2", {}, "What was asked for"),
        el("dl", { class: "facts" },
          fact("Target", el("a", { href: `/agents/${encodeURIComponent(detail.target.id)}` }, detail.target.id), ` (${detail.target.type})`),
          fact("Baseline version", el("code", {}, detail.target.version.slice(0, 16))),
          fact("Dataset", el("a", { href: `/datasets/${encodeURIComponent(request.dataset)}`, class: "mono" }, request.dataset.slice(0, 16))),
          fact("Objectives", request.objectives.map((one) => `${one.guardrail ? "guardrail " : ""}${one.direction} ${one.metric}, weight ${one.weight}`).join("; ")),
          fact("Algorithms", detail.algorithms.join(", ")),
          fact("Caps", [limits.max_lm_calls && `${count(limits.max_lm_calls)} calls`, limits.max_cost_usd && money(limits.max_cost_usd), limits.max_tokens && `${count(limits.max_tokens)} tokens`, limits.max_seconds && duration(limits.max_seconds)].filter(Boolean).join(", ") || "none"),
          fact("Smallest gain that matters", request.constraints.min_improvement_threshold),
          fact("Seed", request.constraints.seed),
          fact("Concurrency", request.constraints.concurrency),
          fact("Lane and priority", `${request.constraints.lane}, ${request.constraints.priority}`),
          request.constraints.deadline ? fact("Deadline", when(request.constraints.deadline)) : null,
          fact("Handed in", when(detail.created_at)),
          fact("Changed last", when(detail.updated_at)))),
      el("section", { class: "card", "aria-label": "As JSON" }, copyBlock("As JSON (the body of POST /api/v1/optimize)", JSON.stringify(body, null, 2)))),
    el("section", { class: "card", "aria-label": "Ask for it again" },
      el("h2", {}, "Ask for it again"),
      copyBlock("curl", asCurl(body)),
      copyBlock("Python SDK", asSdk(body)),
      copyBlock("CLI", asCli(body)),
      el("p", { class: "hint" }, "The CLI works in its own store: it needs the agent and the examples as files.")));
}

const fact = (name, ...value) => [el("dt", {}, name), el("dd", {}, value.map((one) => (typeof one === "number" ? String(one) : one)))];

export function bodyOf(detail) {
  const { request } = detail;
  const { limits, lane, deadline, requires_approval: approval, ...rest } = request.constraints;
  const given = Object.entries({
    max_lm_calls: limits.max_lm_calls, max_cost_usd: limits.max_cost_usd, max_tokens: limits.max_tokens, max_optimization_time: limits.max_seconds,
    ...rest, requires_gpu: lane === "gpu" || null, requires_approval: approval || null,
  }).filter(([, value]) => value !== null && value !== undefined);
  return {
    target: request.target,
    dataset: { id: request.dataset },
    // A margin is kept for every objective, and taken only with a guardrail.
    objectives: request.objectives.map((one) => Object.fromEntries(Object.entries(one).filter(([name, value]) => value !== null && value !== false && (name !== "margin" || one.guardrail)))),
    ...(request.metrics?.some((one) => Object.keys(one).length > 1) ? { metrics: request.metrics } : {}),
    algorithms: request.algorithms.map(({ name, options }) => (Object.keys(options ?? {}).length ? { [name]: options } : name)),
    constraints: Object.fromEntries(given),
  };
}
