"""MIPROv2's proposals, asked at once.

DSPy asks for one instruction after the other, three calls each, though none needs another's answer. Here everything
that chance decides is drawn first, in DSPy's order, and then all are asked at once: the requests, and so the
instructions, are the very ones DSPy alone would get.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.propose.grounded_proposer import TIPS, GroundedProposer

from dspy_optimization.adapters.dspy.run_record import failure_in_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One instruction to ask for, with everything chance has decided of it."""

    component: int
    demo_set: int
    tip: str | None
    rollout: int


class ParallelProposer(GroundedProposer):
    """Proposes as DSPy does, in threads.

    An instruction whose answer nobody can read is replaced by the component's present one: DSPy would lose the whole
    search over it.
    """

    def __init__(self, *, threads: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._threads = threads
        self.failures: list[str] = []

    def propose_instructions_for_program(
        self,
        trainset: list[Any],  # noqa: ARG002 - DSPy's interface
        program: Any,
        demo_candidates: Mapping[int, Sequence[Any]] | None,
        trial_logs: Mapping[int, Any],
        N: int,  # noqa: N803 - DSPy's interface
    ) -> dict[int, list[str]]:
        """Return predictor number → instructions, in DSPy's order."""
        if self.set_history_randomly:
            self.use_instruct_history = self.rng.random() < 0.5
        if not demo_candidates:
            self.use_task_demos = False
        sets = max(len(demo_candidates[0]), 1) if demo_candidates else N
        proposals = list(self._drawn(len(program.predictors()), min(N, sets)))
        with ThreadPoolExecutor(max(self._threads, 1)) as pool:
            asked = [
                pool.submit(_in(copy_context()), self._ask, one, program, demo_candidates, trial_logs)
                for one in proposals
            ]
            texts = [future.result() for future in asked]
        found: dict[int, list[str]] = {}
        for one, text in zip(proposals, texts, strict=True):
            found.setdefault(one.component, []).append(text)
        return found

    def _drawn(self, predictors: int, sets: int) -> Iterator[Proposal]:
        for component in range(predictors):
            for demo_set in range(sets):
                tip = TIPS[self.rng.choice(list(TIPS))] if self.set_tip_randomly else None
                yield Proposal(component=component, demo_set=demo_set, tip=tip, rollout=self.rng.randint(0, 10**9))

    def _ask(self, one: Proposal, program: Any, demo_candidates: Any, trial_logs: Mapping[int, Any]) -> str:
        # DSPy keeps what it draws on the proposer itself: each thread has its own.
        own = copy.copy(self)
        own.rng = _Drawn(one.rollout)
        if self.set_tip_randomly:
            own.use_tip = bool(one.tip)
        predictor = program.predictors()[one.component]
        try:
            text: str = own.propose_instruction_for_predictor(
                program=program,
                predictor=predictor,
                pred_i=one.component,
                demo_candidates=demo_candidates,
                demo_set_i=one.demo_set,
                trial_logs=trial_logs,
                tip=one.tip,
            )
        except (dspy.AdapterParseError, dspy.LMInvalidRequestError) as error:
            self.failures.append(failure_in_words(error))
            return str(predictor.signature.instructions)
        return text


class _Drawn:
    """A generator that gives what was drawn before."""

    def __init__(self, value: int) -> None:
        self._value = value

    def randint(self, low: int, high: int) -> int:  # noqa: ARG002
        """Return it."""
        return self._value


def _in(context: Context) -> Any:
    return context.run
