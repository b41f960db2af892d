// Errors at the fields they are about. The answer names a field, or its sentence begins with one.

import { byId, el } from "./dom.js";
import { notice } from "./parts.js";

export function clearErrors(form) {
  for (const node of form.querySelectorAll("p.field-error, [data-problem]")) node.remove();
  for (const node of form.querySelectorAll("[aria-invalid]")) {
    node.removeAttribute("aria-invalid");
    node.removeAttribute("aria-describedby");
  }
}

// Puts every error at the field whose name fits best, and the rest at the top of the place for it.
export function showErrors(form, problem, place) {
  clearErrors(form);
  const listed = problem.errors.length ? problem.errors : [{ field: /^([a-z_]+(?:[.[][\w\].]*)*):? /.exec(problem.detail ?? "")?.[1] ?? "", message: problem.detail || problem.message }];
  const homeless = listed.filter((one) => !put(form, one));
  place.prepend(el("div", { "data-problem": true }, notice("bad", problem.title, homeless.length ? homeless.map((one) => (one.field && problem.errors.length ? `${one.field}: ${one.message}` : one.message)).join("\n") : "See the marked fields.")));
  form.querySelector("[aria-invalid]")?.focus();
}

function put(form, { field, message }) {
  const parts = field.replaceAll("[", ".").replaceAll("]", "").split(".").filter(Boolean);
  for (let length = parts.length; length > 0; length -= 1) {
    const found = form.querySelector(`[data-field~="${CSS.escape(parts.slice(0, length).join("."))}"]`);
    if (!found) continue;
    const id = `error-${parts.slice(0, length).join("-")}`;
    byId(id)?.remove();
    const isControl = found.matches("input, select, textarea");
    found.after(el("p", { class: "field-error", id }, message));
    if (isControl) {
      found.setAttribute("aria-invalid", "true");
      found.setAttribute("aria-describedby", id);
      for (let around = found.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
    }
    return true;
  }
  return false;
}
