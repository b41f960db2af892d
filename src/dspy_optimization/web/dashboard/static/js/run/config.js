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
          fact("Policy", request.policy ? policyText(request.policy) : "weights"),
          fact("Algorithms", detail.algorithms.join(", ")),
          fact("Caps", [limits.max_lm_calls && `${count(limits.max_lm_calls)} calls`, limits.max_cost_usd && money(limits.max_cost_usd), limits.max_tokens && `${count(limits.max_tokens)} tokens`, limits.max_seconds && duration(limits.max_seconds)].filter(Boolean).join(", ") || "none"),
          fact("Smallest gain that matters", request.constraints.min_improvement_threshold),
          fact("Seed", request.constraints.seed),
          fact("Concurrency", request.constraints.concurrency),
          fact("Lane and priority", `${request.constraints.lane}, ${request.constraints.priority}`),
          request.constraints.isolation === "process" ? fact("Isolation", "a process of its own") : null,
          request.constraints.deadline ? fact("Deadline", when(request.constraints.deadline)) : null,
          detail.schedule ? fact("Made by the schedule", el("a", { href: "/schedules" }, detail.schedule.name), detail.schedule.due_at ? `, due ${when(detail.schedule.due_at)}` : ", by hand") : null,
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

const policyText = ({ type, ...more }) => [type.replaceAll("_", " "), ...Object.entries(more).map(([name, value]) => `${name.replaceAll("_", " ")} ${Array.isArray(value) ? value.join(", ") : value}`)].join("; ");

const fact = (name, ...value) => [el("dt", {}, name), el("dd", {}, value.map((one) => (typeof one === "number" ? String(one) : one)))];

// The API says itself what asks for the same again.
export const bodyOf = (detail) => detail.body;
