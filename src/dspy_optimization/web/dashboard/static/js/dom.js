// Elements from data. Text is always a text node: what users wrote can never become markup.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected", "indeterminate"]);

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") Object.assign(node.style, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) {
      node[name] = value;
      if (value === true || name === "value") node.setAttribute(name, value === true ? "" : value);
    } else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...flat(children));
  return node;
}

const flat = (children) => children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false);

export const byId = (id) => document.getElementById(id);

// Makes the children of a container these, keeping every node that says the same already: scroll, selection, focus,
// open details and what somebody is typing survive an update. Listeners belong on the container (`on`).
export function render(container, ...children) {
  container.removeAttribute("aria-busy");
  morphChildren(container, flat(children).map((one) => (one instanceof Node ? one : document.createTextNode(String(one)))));
}

function morphChildren(old, fresh) {
  const keyed = new Map([...old.childNodes].filter((node) => node.dataset?.key).map((node) => [node.dataset.key, node]));
  let place = old.firstChild;
  for (const node of fresh) {
    const key = node.dataset?.key;
    let same = key ? keyed.get(key) : place;
    if (same && !key && same.dataset?.key) same = null;
    if (same && alike(same, node)) {
      if (same !== place) old.insertBefore(same, place);
      else place = place.nextSibling;
      morph(same, node);
    } else {
      old.insertBefore(node, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

const alike = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName;

function morph(old, fresh) {
  if (old === fresh || old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.hasAttribute("data-own")) return; // a chart or a form keeps itself
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  // Through the object model: the policy of the page blocks `style` as an attribute.
  if (old.style && old.style.cssText !== fresh.style.cssText) old.style.cssText = fresh.style.cssText;
  if (old.disabled !== undefined && old.disabled !== fresh.disabled) old.disabled = fresh.disabled;
  morphChildren(old, [...fresh.childNodes]);
}

// One listener for everything in the container that fits, now or later.
export function on(container, event, selector, handler) {
  container.addEventListener(event, (happened) => {
    const found = happened.target.closest?.(selector);
    if (found && container.contains(found)) handler(found, happened);
  });
}

export function announce(text) {
  byId("told").textContent = text;
}
