// One request, written for a shell, for Python and for the command line.

const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

export const asCurl = (body) =>
  `curl -sS ${location.origin}/api/v1/optimize \\\n  -H 'Content-Type: application/json' -H "Authorization: Bearer $DSPY_OPT_API_KEY" \\\n  -d ${quoted(JSON.stringify(body, null, 1))}`;

// JSON as Python writes it.
function python(value, depth = 0) {
  const inner = "    ".repeat(depth + 1);
  const outer = "    ".repeat(depth);
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const parts = Array.isArray(value) ? value.map((one) => python(one, depth + 1)) : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${python(one, depth + 1)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const line = parts.join(", ");
  return line.length < 80 ? `${open}${line}${close}` : `${open}\n${parts.map((one) => `${inner}${one},\n`).join("")}${outer}${close}`;
}

export function asSdk(body) {
  const agent = body.target.config ?? body.target.id;
  const constraints = Object.entries(body.constraints ?? {}).map(([name, value]) => `${name}=${python(value)}`).join(", ");
  const examples = body.dataset.id ? `client.datasets.get(${python(body.dataset.id)})` : 'Path("examples.jsonl")';
  return [
    body.dataset.id ? null : "from pathlib import Path\n",
    `from dspy_optimization.sdk import Client, Constraints${body.target.version ? ", Target" : ""}`,
    "",
    `with Client(${python(location.origin)}) as client:`,
    "    handle = client.optimize(",
    `        ${body.target.version ? `Target(agent=${python(agent, 2)}, version=${python(body.target.version)})` : python(agent, 2)},`,
    `        ${examples},`,
    `        objectives=${python(body.objectives, 2)},`,
    body.policy ? `        policy=${python(body.policy, 2)},` : null,
    body.algorithms ? `        algorithms=${python(body.algorithms, 2)},` : null,
    `        constraints=Constraints(${constraints}),`,
    "    )",
    "    print(handle.id)",
  ].filter((line) => line !== null).join("\n");
}

export function asCli(body) {
  const caps = body.constraints ?? {};
  const parts = ["dspy-opt optimize agent.yaml --data examples.jsonl"];
  for (const one of body.objectives) parts.push(`-o ${quoted([one.metric, { maximize: "max", minimize: "min" }[one.direction], one.direction && one.weight ? one.weight : null].filter(Boolean).join(":"))}`);
  for (const one of body.algorithms ?? []) {
    const name = typeof one === "string" ? one : Object.keys(one)[0];
    parts.push(`-a ${name}`);
    if (typeof one !== "string") for (const [option, value] of Object.entries(one[name])) parts.push(`--option ${quoted(`${name}.${option}=${typeof value === "object" ? JSON.stringify(value) : value}`)}`);
  }
  if (body.policy) parts.push(`--policy ${quoted(JSON.stringify(body.policy))}`);
  if (caps.max_lm_calls) parts.push(`--max-calls ${caps.max_lm_calls}`);
  if (caps.max_cost_usd) parts.push(`--max-usd ${caps.max_cost_usd}`);
  if (caps.max_tokens) parts.push(`--max-tokens ${caps.max_tokens}`);
  if (caps.max_optimization_time) parts.push(`--time-limit ${Math.round(caps.max_optimization_time)}s`);
  if (caps.min_improvement_threshold) parts.push(`--min-gain ${caps.min_improvement_threshold}`);
  if (caps.seed !== undefined) parts.push(`--seed ${caps.seed}`);
  if (caps.concurrency) parts.push(`--concurrency ${caps.concurrency}`);
  return parts.join(" \\\n  ");
}
