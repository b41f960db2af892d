// The documentation of the API, drawn from /openapi.json.

import { get } from "../api.js";
import { byId, el, render } from "../dom.js";
import { copyBlock, empty, failure, table } from "../parts.js";

const place = byId("docs");
const METHODS = ["get", "post", "put", "patch", "delete"];
let operations = [];
let document_ = null;

async function load() {
  try {
    document_ = await get("/openapi.json");
    operations = Object.entries(document_.paths).flatMap(([path, methods]) =>
      METHODS.filter((method) => methods[method]).map((method) => ({ path, method, ...methods[method] })));
    draw();
  } catch (problem) {
    render(place, failure(problem, load));
  }
}

function draw() {
  const wanted = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = operations.filter((one) => {
    const text = `${one.method} ${one.path} ${one.summary ?? ""} ${one.description ?? ""} ${(one.tags ?? []).join(" ")}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
  const groups = new Map();
  for (const one of found) {
    const name = one.tags?.[0] ?? "streams";
    groups.set(name, [...(groups.get(name) ?? []), one]);
  }
  render(place, found.length
    ? [...[...groups].map(([name, list]) => el("section", { class: "card flush", "data-key": name, "aria-label": name }, el("header", {}, el("h2", {}, name), el("p", {}, list.length === 1 ? "1 operation" : `${list.length} operations`)), list.map(operation))),
      el("section", { class: "card", "data-key": "socket", "aria-label": "WebSocket" }, el("h2", {}, "WebSocket"),
        el("p", {}, el("code", {}, "/ws/optimizations/{optimization_id}?after="), " sends the same messages as the event stream: first where the optimization stands, then every event with a greater id. It closes with 1000 after the end, 4401 or 4403 without a key that may, 4404 for an unknown id.")),
    ]
    : el("div", { class: "card" }, empty("None fits", "Other words may find it.")));
}

function operation(one) {
  const id = `${one.method}-${one.path.replace(/[^a-z0-9]+/gi, "-")}`;
  return el("details", { class: "operation", "data-key": id, id, open: location.hash === `#${id}` },
    el("summary", {}, el("span", { class: `method ${one.method}` }, one.method.toUpperCase()), el("code", {}, one.path), el("span", {}, prose((one.description ?? one.summary ?? "").split("\n")[0]))),
    el("div", {},
      one.description?.includes("\n") ? el("p", {}, prose(one.description)) : null,
      one.parameters?.length ? el("div", { class: "stack" }, el("h3", {}, "Parameters"), parameters(one.parameters)) : null,
      one.requestBody ? body("Body", one.requestBody.content) : null,
      answers(one.responses),
      copyBlock("curl", curl(one))));
}

// Words in backticks are code.
const prose = (text) => text.split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part));

function parameters(list) {
  return table({
    caption: "Parameters",
    columns: [{ label: "Name" }, { label: "In" }, { label: "Type" }, { label: "Meaning" }],
    rows: list.map((one) => ({
      key: `${one.in}-${one.name}`,
      cells: [el("span", {}, el("code", {}, one.name), one.required ? " (wanted)" : ""), one.in, el("code", {}, typeOf(one.schema)), [one.description ?? one.schema?.description ?? "", known(one.schema?.default) ? ` Default ${JSON.stringify(one.schema.default)}.` : ""]],
    })),
  });
}

const known = (value) => value !== undefined && value !== null;

function body(title, content) {
  const schema = content?.["application/json"]?.schema;
  if (!schema) return null;
  const sample = content["application/json"].examples ? Object.values(content["application/json"].examples)[0]?.value : resolve(schema).examples?.[0];
  return el("div", { class: "stack" }, el("h3", {}, title), el("pre", { class: "code", tabindex: "0" }, outline(schema)), sample ? copyBlock("Example", JSON.stringify(sample, null, 2)) : null);
}

function answers(responses) {
  return el("div", { class: "stack" },
    el("h3", {}, "Answers"),
    Object.entries(responses ?? {}).map(([status, one]) => {
      const schema = one.content?.["application/json"]?.schema;
      const text = schema && Object.keys(schema).length && Number(status) < 300 ? outline(schema) : null;
      return el("div", { class: "stack" }, el("p", {}, el("b", {}, status), ` ${one.description}`), text ? el("pre", { class: "code", tabindex: "0" }, text) : null);
    }));
}

const resolve = (schema) => (schema?.$ref ? document_.components.schemas[schema.$ref.split("/").at(-1)] : (schema ?? {}));

function typeOf(schema) {
  const one = resolve(schema);
  if (one.enum) return one.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (known(one.const)) return JSON.stringify(one.const);
  const several = one.anyOf ?? one.oneOf;
  if (several) return several.map(typeOf).join(" | ");
  if (one.type === "array") return `[${typeOf(one.items)}, …]`;
  if (one.type === "object" && !one.properties) return "{…}";
  return schema?.$ref ? schema.$ref.split("/").at(-1) : (one.format ?? one.type ?? "any");
}

// A schema as an annotated shape; deeper than this is named only.
function outline(schema, depth = 0) {
  const one = resolve(schema);
  const pad = "  ".repeat(depth + 1);
  if (depth > 3) return typeOf(schema);
  if (one.properties) {
    const wanted = new Set(one.required ?? []);
    const lines = Object.entries(one.properties).map(([name, part]) => `${pad}${JSON.stringify(name)}${wanted.has(name) ? "" : "?"}: ${outline(part, depth + 1)}${part.description ? `  // ${part.description}` : ""}`);
    return `{\n${lines.join("\n")}\n${"  ".repeat(depth)}}`;
  }
  if (one.type === "array" && resolve(one.items).properties) return `[${outline(one.items, depth)}, …]`;
  const objects = (one.anyOf ?? one.oneOf ?? []).filter((part) => resolve(part).properties);
  if (objects.length === 1) return `${outline(objects[0], depth)} or ${(one.anyOf ?? one.oneOf).filter((part) => part !== objects[0]).map(typeOf).join(" or ")}`;
  return typeOf(schema);
}

function curl(one) {
  const path = one.path.replaceAll(/\{(\w+)\}/g, (_, name) => `<${name}>`);
  const has = Boolean(one.requestBody?.content?.["application/json"]);
  return `curl -sS${one.method === "get" ? "" : ` -X ${one.method.toUpperCase()}`} '${location.origin}${path}' -H "Authorization: Bearer $DSPY_OPT_API_KEY"${has ? " -H 'Content-Type: application/json' -d @body.json" : ""}`;
}

byId("search").addEventListener("input", draw);
await load();
if (location.hash) byId(location.hash.slice(1))?.scrollIntoView();
