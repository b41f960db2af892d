// What came of it: the verdict in words, the gain with its interval, what it rests on.

import { el } from "../dom.js";
import { count, duration, money, pValue, score, share, signed } from "../format.js";
import { goalsOf } from "./goals.js";
import { gainText, intervalBar, measured, notice, table, tag, verdictKind, verdictMeaning, verdictTag } from "../parts.js";

export function resultView(detail, status) {
  const results = status.results;
  if (detail.status === "failed") return notice("bad", "It failed", detail.error ?? "The log of the service says why. It can be resumed: what was answered is not paid again.");
  if (detail.status === "paused" && detail.error) return notice("unsure", "It is paused", detail.error);
  if (!results) return null;
  const details = results.optimization_details;
  return el("section", { class: `card verdict-card ${verdictKind(results.verdict)}`, "aria-label": "Result" },
    el("div", { class: "row spread" },
      el("div", { class: "row" }, verdictTag(results.verdict), el("span", { class: "muted" }, verdictMeaning(results.verdict))),
      el("div", { class: "row" },
        el("a", { class: "button small", href: detail.links.artifact, download: true }, "Download artifact"),
        el("a", { class: "button small", href: detail.links.report, target: "_blank", rel: "noopener" }, "Report"))),
    el("p", { class: "verdict-sentence" }, results.reason ?? `No verdict: ${details.ended_because}.`),
    results.confidence_interval
      ? intervalBar({ value: results.absolute_improvement, interval: results.confidence_interval, verdict: results.verdict, mde: results.mde, large: true })
      : null,
    results.confidence_interval
      ? el("p", { class: "hint" }, "Dashed: no change.", results.mde ? ` Hatched: gains below ${score(results.mde)}, the smallest this test split can usually show (MDE).` : "")
      : null,
    el("dl", { class: "numbers" },
      fact("Gain on test", gainText(results.absolute_improvement, results.confidence_interval)),
      results.improvement_percentage === null ? null : fact("Relative to the baseline", relative(detail, results)),
      fact("p-value", pValue(results.statistical_significance)),
      fact("Smallest gain it can show", results.mde === null ? "–" : score(results.mde)),
      fact("Test examples", details.n_examples === null ? "not opened" : `${count(details.n_examples)}${details.test_split_use > 1 ? `, use ${details.test_split_use}` : ""}`),
      fact("Trials", count(details.trials))),
    objectives(results),
    several(detail, results),
    worth(details.key_improvements),
    el("p", { class: "hint break" },
      `By ${results.algorithm_used ?? "no algorithm"}; ended because: ${details.ended_because}. `,
      `${count(status.metrics.lm_calls)} calls, ${money(status.metrics.cost_usd.total)}, ${duration(status.metrics.elapsed_seconds)}`,
      status.metrics.cache_hit_rate === null ? "" : `, ${share(status.metrics.cache_hit_rate)} answered from the ledger`,
      `. Agent version ${results.artifact.agent_version.slice(0, 12)}, checksum ${results.artifact.checksum.slice(0, 12)}`,
      results.artifact.mlflow_run_id ? `, MLflow run ${results.artifact.mlflow_run_id}` : "", "."));
}

const fact = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));

// A share of the baseline says little without the range it may lie in; the baseline itself is taken as it was measured.
function relative(detail, results) {
  const primary = detail.request.objectives.find((one) => !one.guardrail)?.metric;
  const baseline = results.baseline_performance[primary]?.value;
  const interval = results.confidence_interval;
  const percent = (value) => `${signed(Math.round(value)).replace(/[.]0+$/, "")}\u00a0%`;
  if (!interval || !baseline) return "–";
  return `${percent(results.improvement_percentage)} (${percent((100 * interval[0]) / Math.abs(baseline))} to ${percent((100 * interval[1]) / Math.abs(baseline))})`;
}

// With several goals the verdict is said of one of many: who took it, and why, is told beside it.
function several(detail, results) {
  if (!results.pick || goalsOf(detail).length < 2) return null;
  return el("p", { class: "hint break" }, el("b", {}, "On val, optimistic: "), `taken by the policy ${results.pick.policy.replaceAll("_", " ")}, ${results.pick.reason}. `, el("a", { href: "#front" }, "Who else is on the front"), ".");
}

function objectives(results) {
  const names = Object.keys(results.optimized_performance);
  if (!names.length) return null;
  return el("details", { open: names.length <= 2 },
    el("summary", {}, "Before and after, on test"),
    table({
      caption: "Performance on the test split",
      columns: [{ label: "Metric" }, { label: "Baseline" }, { label: "Optimized" }, { label: "Examples", number: true }],
      rows: names.map((name) => ({
        key: name,
        cells: [el("b", {}, name), measured(results.baseline_performance[name]), measured(results.optimized_performance[name]), count(results.optimized_performance[name].n)],
      })),
    }));
}

function worth(improvements) {
  if (!improvements.length) return null;
  return el("details", {},
    el("summary", {}, `What each change is worth on val (${improvements.length})`),
    table({
      caption: "Ablation",
      columns: [{ label: "Change" }, { label: "Worth, put back alone" }, { label: "Interval" }],
      rows: improvements.map((one) => ({
        key: `${one.component}/${one.part}`,
        cells: [
          el("span", {}, el("b", {}, one.component), ` ${one.part}`),
          one.worth.low === null ? `${signed(one.worth.value)}, no interval` : gainText(one.worth.value, [one.worth.low, one.worth.high]),
          one.worth.low === null ? tag("", "", `n = ${one.worth.n}`) : intervalBar({ value: one.worth.value, interval: [one.worth.low, one.worth.high], verdict: one.worth.low > 0 ? "improved" : one.worth.high < 0 ? "regressed" : "indecisive" }),
        ],
      })),
    }));
}
