// Examples as people have them: JSON lines, a JSON list, or CSV with a first line of names.

export class UnreadableError extends Error {}

export function readRecords(text) {
  const trimmed = text.trim();
  if (!trimmed) return [];
  if (trimmed.startsWith("[")) return objects(parsed(trimmed, "the list"));
  if (trimmed.startsWith("{")) {
    return objects(trimmed.split("\n").map((line, place) => [line.trim(), place + 1]).filter(([line]) => line).map(([line, place]) => parsed(line, `line ${place}`)));
  }
  return fromCsv(trimmed);
}

function parsed(text, where) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UnreadableError(`${where}: no JSON (${error.message})`);
  }
}

function objects(list) {
  const wrong = list.findIndex((one) => typeof one !== "object" || one === null || Array.isArray(one));
  if (wrong >= 0) throw new UnreadableError(`example ${wrong + 1}: an object with fields is wanted, such as {"question": "…", "answer": "…"}`);
  return list;
}

function fromCsv(text) {
  const rows = [];
  let cell = "";
  let row = [];
  let isQuoted = false;
  for (let place = 0; place < text.length; place += 1) {
    const sign = text[place];
    if (isQuoted) {
      if (sign !== '"') cell += sign;
      else if (text[place + 1] === '"') cell += text[(place += 1)];
      else isQuoted = false;
    } else if (sign === '"') isQuoted = true;
    else if (sign === ",") row.push(cell), (cell = "");
    else if (sign === "\n") rows.push([...row, cell]), (row = []), (cell = "");
    else if (sign !== "\r") cell += sign;
  }
  rows.push([...row, cell]);
  const [names, ...rest] = rows;
  if (names.length < 2 || !rest.length) throw new UnreadableError('JSON lines, a JSON list or CSV with names in its first line is wanted; found something else');
  const bad = rest.findIndex((one) => one.length !== names.length);
  if (bad >= 0) throw new UnreadableError(`line ${bad + 2}: ${names.length} cells are wanted, found ${rest[bad].length}`);
  return rest.map((one) => Object.fromEntries(names.map((name, place) => [name.trim(), one[place]])));
}

// What the examples hold, in a sentence.
export function described(records) {
  if (!records.length) return "No examples yet.";
  const names = [...new Set(records.slice(0, 200).flatMap((one) => Object.keys(one)))];
  return `${records.length} examples with ${names.join(", ")}.`;
}
