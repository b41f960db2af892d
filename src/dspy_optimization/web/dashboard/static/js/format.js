// Numbers and times as people read them.

import { el } from "./dom.js";

const DASH = "–";
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export const known = (value) => value !== null && value !== undefined;
export const count = (value) => (known(value) ? number.format(value) : DASH);
export const score = (value) => (known(value) ? trim(value) : DASH);
export const signed = (value) => (known(value) ? `${value > 0 ? "+" : value < 0 ? "−" : "±"}${trim(Math.abs(value))}` : DASH);
export const range = (interval, write = signed) => (interval ? `${write(interval[0])} to ${write(interval[1])}` : DASH);
export const share = (value) => (known(value) ? `${(100 * value).toFixed(value < 0.1 && value > 0 ? 1 : 0)} %` : DASH);
export const short = (text, length = 8) => (text ? text.slice(0, length) : DASH);

function trim(value) {
  const size = Math.abs(value);
  if (size >= 1000) return number.format(value);
  if (size !== 0 && size < 0.001) return value.toExponential(1);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3).replace("-", "−");
}

export function money(value) {
  if (!known(value)) return "price unknown";
  if (value === 0) return "$0";
  if (value < 0.01) return `$${value.toPrecision(2)}`;
  return `$${value.toFixed(value < 100 ? 2 : 0)}`;
}

export function pValue(value) {
  if (!known(value)) return DASH;
  return value < 0.001 ? "below 0.001" : value.toFixed(3);
}

export function duration(seconds) {
  if (!known(seconds)) return DASH;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  if (whole < 2 * 86400) return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
  return `${Math.round(whole / 86400)} days`;
}

export function bytes(value) {
  if (!known(value)) return DASH;
  return value >= 2 ** 30 ? `${(value / 2 ** 30).toFixed(1)} GiB` : `${Math.round(value / 2 ** 20)} MiB`;
}

function ageOf(text) {
  const seconds = (Date.now() - Date.parse(text)) / 1000;
  if (seconds < -1) return `in ${duration(-seconds)}`;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export const age = (text) => el("time", { datetime: text, title: moment.format(new Date(text)), "data-age": true, class: "nowrap" }, ageOf(text));
export const at = (text) => el("time", { datetime: text, title: moment.format(new Date(text)) }, clock.format(new Date(text)));
export const when = (text) => moment.format(new Date(text));

// Ages grow while a page stands open.
export function keepAges() {
  setInterval(() => {
    for (const node of document.querySelectorAll("time[data-age]")) node.textContent = ageOf(node.dateTime);
  }, 20_000);
}
