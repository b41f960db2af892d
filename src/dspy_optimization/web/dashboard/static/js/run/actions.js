// Steering: what may be asked of an optimization in its state.

import { post } from "../api.js";
import { el } from "../dom.js";
import { confirm, toast } from "../parts.js";
import { needs, why } from "../who.js";

const ACTIONS = {
  pause: { label: "Pause", states: ["running"], title: "Pause it?", text: "Calls in flight are finished and kept. Resuming pays for nothing twice." },
  resume: { label: "Resume", states: ["paused"], title: "Resume it?", text: "It goes on where it stopped. What was answered is not paid again." },
  retry: { label: "Retry", states: ["failed"], title: "Retry it?", text: "It goes on where it failed. What was answered is not paid again." },
  cancel: { label: "Cancel", states: ["running", "queued", "paused"], title: "Cancel it for good?", text: "It cannot be resumed afterwards. The best candidate so far is kept, without a verdict.", danger: true },
};

export function actionButtons(status) {
  const buttons = Object.entries(ACTIONS)
    .filter(([, one]) => one.states.includes(status))
    .map(([name, one]) => el("button", { type: "button", "data-action": name, class: one.danger ? "danger" : null, ...needs("run") }, one.label));
  return buttons.length ? [buttons, why("run")] : [];
}

export async function act(run, name) {
  const { label, title, text, danger } = ACTIONS[name];
  if (!(await confirm({ title, text, action: `${label} it`, danger }))) return;
  try {
    const asked = await post(`${run.path}/${name}`);
    toast(asked.is_done ? `Now: ${asked.status}.` : "Asked. A worker does it after the calls in flight.");
    if (name === "retry" || name === "resume") location.reload(); // its stream had ended
  } catch (problem) {
    toast(problem.message);
  }
  run.isStale = true;
  run.refresh();
}
