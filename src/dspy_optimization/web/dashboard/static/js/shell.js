// What every page has: the menu, the theme, who asks, ages that grow, buttons that copy.

import { remove } from "./api.js";
import { byId, el, on } from "./dom.js";
import { keepAges } from "./format.js";
import { toast } from "./parts.js";
import { me } from "./who.js";

const THEMES = ["system", "light", "dark"];

function themeNow() {
  try {
    return localStorage.getItem("theme") ?? "system";
  } catch {
    return document.documentElement.dataset.theme;
  }
}

const nameTheme = () => (byId("theme").textContent = `Theme: ${themeNow()}`);

byId("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(themeNow()) + 1) % THEMES.length];
  document.dispatchEvent(new CustomEvent("theme-wanted", { detail: next === "system" ? null : next }));
  nameTheme();
});
nameTheme();

byId("menu").addEventListener("click", () => {
  const isOpen = byId("side").toggleAttribute("data-open");
  byId("menu").setAttribute("aria-expanded", String(isOpen));
});

on(document, "click", "[data-copy]", async (button) => {
  const text = button.closest(".copy").querySelector("pre").textContent;
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    getSelection().selectAllChildren(button.closest(".copy").querySelector("pre"));
    toast("The browser does not allow it; the text is selected, press Ctrl+C.");
  }
});

keepAges();

if (me) {
  byId("who").replaceChildren(
    ...(me.requires_key
      ? [`${me.name} (${me.role}) `, el("button", { type: "button", class: "small plain", onclick: leave }, "Log out")]
      : ["Local administrator; no key needed"]),
  );
}

async function leave() {
  await remove("login");
  location.assign("/login");
}
