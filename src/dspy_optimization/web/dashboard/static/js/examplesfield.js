// Where examples are pasted, dropped or chosen as a file.

import { el } from "./dom.js";
import { described, readRecords } from "./records.js";

export function examplesField({ id, field = "dataset.examples dataset" }) {
  const text = el("textarea", { id, "data-field": field, spellcheck: "false", placeholder: '{"message": "Order 10234 came broken.", "order": "10234"}\n{"message": "…", "order": "…"}' });
  const file = el("input", { type: "file", accept: ".jsonl,.json,.csv,.txt", "aria-label": "Examples from a file" });
  const told = el("small", { role: "status" }, "JSON lines, a JSON list, or CSV. A hundred examples are a good start.");
  let whole = null; // of a large file, which a text area would choke on

  const look = () => {
    try {
      told.textContent = described(read());
      told.className = "";
    } catch (error) {
      told.textContent = error.message;
      told.className = "field-error";
    }
    text.dispatchEvent(new Event("examples", { bubbles: true }));
  };
  const take = async (chosen) => {
    const content = await chosen.text();
    whole = content.length > 300_000 ? content : null;
    text.value = whole ? "" : content;
    text.placeholder = whole ? `${chosen.name} is held, too large to show` : text.placeholder;
    look();
  };
  const read = () => readRecords(whole ?? text.value);

  text.addEventListener("input", () => {
    whole = null;
    look();
  });
  file.addEventListener("change", () => file.files[0] && take(file.files[0]));
  text.addEventListener("dragover", (event) => event.preventDefault());
  text.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  return { node: el("div", { class: "field" }, el("label", { for: id }, "Examples"), text, file, told), read };
}
