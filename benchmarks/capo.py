"""CAPO of promptolution (Zehle et al. 2025) as an algorithm like the others: same agent, same calls, same counting.

promptolution runs prompts of its own form. Here its instruction becomes the component's, its examples become demos, and
whatever it evaluates is a run of the agent, so that nothing but the search differs.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
from promptolution.llms.base_llm import BaseLLM
from promptolution.optimizers.capo import CAPO
from promptolution.predictors.base_predictor import BasePredictor
from promptolution.tasks.reward_tasks import RewardTask
from promptolution.utils.prompt import Prompt

from dspy_optimization.agents.candidate import Candidate, canonical_json
from dspy_optimization.agents.example import Example, Split
from dspy_optimization.algorithms.problem import Forecast, Problem, SearchRun, Shape
from dspy_optimization.algorithms.proposals import Proposals
from dspy_optimization.errors import StopSearch
from dspy_optimization.evaluation.model import ModelRequest, Role

_STEPS = 10_000
"""It goes on until its calls are spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapoOptions:
    """As in the paper, where a small budget allows it."""

    population: int = 8
    """Prompts, the first of them the baseline's; the others the writer's."""
    block: int = 15
    """Examples a race is decided on at a time."""
    shots: int = 5
    """Demos at most."""


class Capo:
    """Evolves prompts by crossover and mutation and races them on blocks of val."""

    name: ClassVar[str] = "capo"
    description: ClassVar[str] = "CAPO of promptolution"
    options: ClassVar[type] = CapoOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return nothing: it has no end of its own."""
        raise NotImplementedError

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Search until the calls are spent; then name the best of the last population."""
        options = cast("CapoOptions", problem.options)
        logging.getLogger("promptolution").setLevel(logging.CRITICAL)
        # It draws from the global generators.
        random.seed(problem.seed)
        np.random.seed(problem.seed)
        task = _Task(problem, run, options)
        capo = CAPO(
            predictor=_Predictor(task),
            task=task,
            meta_llm=_Writer(run),
            initial_prompts=_prompts(problem, run, options.population),
            upper_shots=options.shots,
            create_fs_reasoning=False,
            check_fs_accuracy=False,
            df_few_shots=pd.DataFrame(
                {
                    "x": [canonical_json(dict(one.inputs)) for one in problem.train],
                    "y": [one.id for one in problem.train],
                }
            ),
        )
        try:
            capo.optimize(_STEPS)
        except StopSearch:
            self._name(capo, task, run)
            raise
        self._name(capo, task, run)

    def _name(self, capo: Any, task: "_Task", run: SearchRun) -> None:
        """Submit the prompt with the best mean among those measured on most blocks, as CAPO returns it."""
        scored = [(task.known(prompt), prompt) for prompt in capo.prompts]
        most = max((len(scores) for scores, _ in scored), default=0)
        best = max(
            (one for one in scored if len(one[0]) == most and most),
            key=lambda one: float(np.mean(one[0])),
            default=None,
        )
        if best is not None:
            run.submit(task.candidate(best[1]))


class _Task(RewardTask):  # type: ignore[misc]
    """The val split; a prediction is the score the agent earned."""

    def __init__(self, problem: Problem, run: SearchRun, options: CapoOptions) -> None:
        self.problem, self.run = problem, run
        self.examples = {one.id: one for one in problem.val}
        self.demos = {one.id: {**one.inputs, **one.expected} for one in problem.train}
        self._component = next(iter(problem.baseline.components))
        self._prompts: dict[str, Prompt] = {}
        super().__init__(
            df=pd.DataFrame({"x": list(self.examples), "y": list(self.examples)}),
            reward_function=float,
            y_column="y",
            n_subsamples=options.block,
            eval_strategy="sequential_block",
            seed=problem.seed,
        )

    def evaluate(self, prompts: Any, *args: Any, **kwargs: Any) -> Any:
        """Remember which text is which prompt."""
        for prompt in [prompts] if isinstance(prompts, Prompt) else prompts:
            self._prompts[str(prompt)] = prompt
        return super().evaluate(prompts, *args, **kwargs)

    def prompt(self, text: str) -> Prompt:
        """Return the prompt of a text."""
        return self._prompts[text]

    def known(self, prompt: Prompt) -> list[float]:
        """Return the scores a prompt earned."""
        return [score for (text, _, _), score in self.eval_cache.items() if text == str(prompt)]

    def candidate(self, prompt: Prompt) -> Candidate:
        """Return the agent that a prompt stands for."""
        shown = [self.demos[one] for one in self.demos if any(one in shot for shot in prompt.few_shots)]
        baseline = self.problem.baseline
        value = replace(baseline.components[self._component], instructions=prompt.instruction, demos=tuple(shown))
        return Candidate(components={**baseline.components, self._component: value}, origin="capo")


class _Predictor(BasePredictor):  # type: ignore[misc]
    def __init__(self, task: _Task) -> None:
        super().__init__(_Writer(task.run))
        self._task = task

    def predict(self, prompts: Sequence[str], xs: Sequence[str], **_: Any) -> tuple[list[str], list[str]]:
        """Return scores as texts, one for each pair of prompt and example."""
        groups: dict[str, list[str]] = {}
        for prompt, x in zip(prompts, xs, strict=True):
            groups.setdefault(prompt, []).append(x)
        scores: dict[tuple[str, str], str] = {}
        for prompt, wanted in groups.items():
            examples: list[Example] = [self._task.examples[x] for x in wanted]
            candidate = self._task.candidate(self._task.prompt(prompt))
            results = self._task.run.evaluate(candidate, examples)
            self._task.run.record(candidate, Split.VAL, results, 1)
            for x, result in zip(wanted, results, strict=True):
                scores[prompt, x] = repr(self._task.problem.objectives.scalar(result.scores))
        found = [scores[pair] for pair in zip(prompts, xs, strict=True)]
        return found, found

    def _extract_preds(self, preds: list[str]) -> list[str]:
        return preds


class _Writer(BaseLLM):  # type: ignore[misc]
    """The model that writes, asked through the run."""

    def __init__(self, run: SearchRun) -> None:
        super().__init__()
        self._run = run
        self._asked = 0

    def _get_response(self, prompts: list[str], system_prompts: list[str]) -> list[str]:
        found = []
        for prompt, system in zip(prompts, system_prompts, strict=True):
            self._asked += 1
            body = {
                "messages": [{"role": "system", "content": system}, {"role": "user", "content": prompt}],
                "temperature": 1.0,
            }
            answer = self._run.call(Role.REFLECTION, ModelRequest(body=body, sample=f"capo/{self._asked}"))
            found.append(str(cast("Any", answer.body)["choices"][0]["message"]["content"]))
        return found


def _prompts(problem: Problem, run: SearchRun, count: int) -> list[str]:
    component, value = next(iter(problem.baseline.components.items()))
    writer = Proposals(agent=problem.agent, calls=run, algorithm="capo", temperature=1.0, most=2 * count)
    known = [value.instructions]
    for number in range(count - 1):
        text = writer.fresh(component, value.instructions, problem.train[:5], number, known)
        known.append(text if text is not None else f"{value.instructions} ")
    return list(dict.fromkeys(known))
