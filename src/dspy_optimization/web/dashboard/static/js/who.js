// Who asks, and what the key allows. Asked once, before anything is drawn; what the key does not allow is still shown,
// says why it cannot be used, and does nothing. The API refuses it in any case.

import { get } from "./api.js";
import { el } from "./dom.js";

export const me = document.body.dataset.page === "login" ? null : await get("me").catch(() => null);

const VERBS = { read: "look", run: "hand in or steer", administer: "change what concerns everybody" };

export const may = (permission) => !me?.permissions || me.permissions.includes(permission);

export const reason = (permission) => `Your key (${me?.role}) does not allow to ${VERBS[permission]}.`;

// Attributes of a button or field.
export const needs = (permission) => (may(permission) ? {} : { disabled: true, title: reason(permission) });

// A link that leads to what needs the permission, or its name alone.
export const link = (permission, attributes, ...children) =>
  may(permission) ? el("a", attributes, children) : el("button", { type: "button", class: (attributes.class ?? "").replace(/\bbutton\b/, "").trim() || null, ...needs(permission) }, children);

export const why = (permission) => (may(permission) ? null : el("small", { class: "hint", "data-why": permission }, reason(permission)));

// What stands in the page from the beginning.
for (const node of document.querySelectorAll("[data-needs]")) {
  const permission = node.dataset.needs;
  if (may(permission)) continue;
  if (node.tagName === "A") node.replaceWith(link(permission, { class: node.className }, node.textContent));
  else Object.assign(node, needs(permission));
}
