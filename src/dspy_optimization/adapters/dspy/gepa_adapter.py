"""What GEPA asks of DSPy: run candidates, look at what they did, propose better instructions.

Neighbours' habits that this module answers to (dspy 3.4.1, gepa 0.1.4):

- `DspyAdapter` gathers traces through `bootstrap_trace`, which drops examples whose answer parsed in part, loses the
  callback metadata, and gives minibatches of three their own thread pools. Here students keep their own traces, and
  everything that is to be run at once is run in one pool.
- The metric is asked a second time for feedback. Here a run is scored once.
- Reflection is asked one proposal after the other, however many an iteration makes. Here all are asked at once, with
  the very requests that one after the other would have made.
- A minibatch that comes again with the same parent would get the same proposal from the ledger, as it would from DSPy's
  cache. Here it is a new draw.
- Merging goes through the components in the order of a set of strings, which Python's hash seed decides.
  `SteadyName` has the same hash in every process.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import dspy
from dspy.teleprompt.gepa.gepa_utils import DspyAdapter
from gepa import EvaluationBatch

from dspy_optimization.adapters.dspy.components import components
from dspy_optimization.adapters.dspy.feedback import feedback_on
from dspy_optimization.adapters.dspy.run_record import failure_in_words
from dspy_optimization.adapters.dspy.scoring import Scored, engine_example, split_of
from dspy_optimization.adapters.dspy.search import NEVER, DspySearch
from dspy_optimization.adapters.dspy.student import StudentRun, TraceStep, run_behind
from dspy_optimization.agents.candidate import Candidate, ComponentName
from dspy_optimization.agents.example import Split
from dspy_optimization.evaluation.trial import ExampleResult

Texts = dict[str, str]
"""Component → instructions: what GEPA calls a candidate."""


class SteadyName(str):
    """A component's name whose hash, and so its place in a set, does not depend on the process."""

    __slots__ = ()

    def __hash__(self) -> int:
        return zlib.crc32(self.encode())


class SearchAdapter(DspyAdapter):
    """Runs and reflects within one search."""

    def __init__(self, search: DspySearch, proposer: Any, pool: ThreadPoolExecutor | None) -> None:
        names = [SteadyName(name) for name, _ in search.student.named_predictors()]
        super().__init__(
            student_module=search.student,
            metric_fn=search.metric,
            feedback_map={name: partial(_feedback, name) for name in names},
            num_threads=search.threads,
            add_format_failure_as_feedback=False,
            rng=search.problem.rng("gepa/reflection"),
            reflection_lm=search.reflection,
            custom_instruction_proposer=proposer,
            warn_on_score_mismatch=False,
        )
        self.seed_candidate: Texts = {
            name: predictor.signature.instructions
            for name, (_, predictor) in zip(names, search.student.named_predictors(), strict=True)
        }
        self._search = search
        self._pool = pool
        self._asked: dict[object, int] = defaultdict(int)
        self._ahead: dict[object, list[Future[Texts]]] = defaultdict(list)
        self.proposals = 0
        self.failed_proposals = 0
        self.last_failure: str | None = None
        self.watch: Callable[[Candidate, Split, Sequence[ExampleResult]], None] | None = None
        """Told of everything that was measured, in gepa's own thread and in its order."""

    def build_program(self, candidate: Texts) -> Any:
        """Return the student with the candidate's instructions."""
        program = self.student.deepcopy()
        texts = {str(name): text for name, text in candidate.items()}
        for name, predictor in program.named_predictors():
            if name in texts:
                predictor.signature = predictor.signature.with_instructions(texts[name])
        return program

    def evaluate(
        self,
        batch: list[Any],
        candidate: Texts,
        capture_traces: bool = False,
        num_threads: int | None = None,  # noqa: ARG002
    ) -> Any:
        """Return what the candidate did on the batch, with traces or without."""
        return self.batch_evaluate([(candidate, batch)], capture_traces=capture_traces)[0]

    def batch_evaluate(self, items: Sequence[tuple[Texts, list[Any]]], *, capture_traces: bool = True) -> list[Any]:
        """Return the same for several candidates, all run in one pool; one trial each."""
        programs = [self.build_program(candidate) for candidate, _ in items]
        pairs = [
            (partial(self._run, program), example)
            for program, (_, batch) in zip(programs, items, strict=True)
            for example in batch
        ]
        parallel = dspy.Parallel(
            num_threads=self._search.threads, max_errors=NEVER, access_examples=False, disable_progress_bar=True
        )
        rows = iter(parallel(pairs))
        return [
            self._batch(program, batch, [next(rows) for _ in batch], capture_traces=capture_traces)
            for program, (_, batch) in zip(programs, items, strict=True)
        ]

    def propose_ahead(self, candidate: Texts, dataset: Mapping[str, Any], names: list[str]) -> None:
        """Begin to ask for a proposal that gepa is about to ask for."""
        if self._pool is not None:
            key = _key(candidate, dataset, names)
            job = partial(self._propose, dict(candidate), dataset, list(names), self._rollout(key))
            self._ahead[key].append(self._pool.submit(copy_context().run, job))

    def propose_new_texts(self, candidate: Texts, reflective_dataset: Mapping[str, Any], names: list[str]) -> Texts:
        """Return new instructions for the named components."""
        key = _key(candidate, reflective_dataset, names)
        ahead = self._ahead.pop(key, [])
        self.proposals += 1
        try:
            if ahead:
                begun, *rest = ahead
                self._ahead[key] = rest
                texts = begun.result()
            else:
                texts = self._propose(candidate, reflective_dataset, names, self._rollout(key))
        except (dspy.AdapterParseError, dspy.LMError, ValueError) as error:
            # gepa asks once more, then goes on without this proposal.
            self.failed_proposals += 1
            self.last_failure = failure_in_words(error)
            raise
        parent = self.candidate(candidate)
        child = self.candidate({**candidate, **texts})
        self._search.book.descend(child, [parent])
        return texts

    def descend(self, candidate: Texts, parents: Sequence[Texts]) -> None:
        """Note where a candidate comes from."""
        self._search.book.descend(self.candidate(candidate), [self.candidate(one) for one in parents])

    def candidate(self, texts: Texts) -> Candidate:
        """Return what gepa's candidate is to the engine."""
        return self._search.book.candidate(self.build_program(texts))

    def _rollout(self, key: object) -> int:
        """Return how often the very same was asked before; counted in gepa's own thread, in its order."""
        self._asked[key] += 1
        return self._asked[key] - 1

    def _propose(self, candidate: Texts, dataset: Mapping[str, Any], names: list[str], rollout: int) -> Texts:
        lm = self.reflection_lm.copy(rollout_id=rollout) if rollout else self.reflection_lm
        with dspy.context(lm=lm):
            texts: Texts = self.custom_instruction_proposer(
                candidate=candidate, reflective_dataset=dataset, components_to_update=names
            )
        return texts

    def _run(self, program: Any, example: Any) -> tuple[Any, Any]:
        prediction = program(**example.inputs())
        return prediction, self._search.metric(example, prediction)

    def _batch(self, program: Any, batch: list[Any], rows: list[tuple[Any, Scored]], *, capture_traces: bool) -> Any:
        candidate, split, results = (
            self._search.book.candidate(program),
            split_of(batch[0]),
            [scored.result for _, scored in rows],
        )
        self._search.book.write(candidate, split, results)
        if self.watch is not None:
            self.watch(candidate, split, results)
        objectives = self._search.problem.objectives
        by_metric = [
            {item.metric: item.oriented(scored.result.scores[item.metric].value) for item in objectives.items}
            for _, scored in rows
        ]
        trajectories = [
            {"example_ind": index, "example": example, "prediction": prediction, "score": scored, "trace": _trace(run)}
            for index, (example, (prediction, scored)) in enumerate(zip(batch, rows, strict=True))
            if (run := run_behind(prediction)) is not None
        ]
        return EvaluationBatch(
            outputs=[prediction for prediction, _ in rows],
            scores=[float(scored) for _, scored in rows],
            trajectories=trajectories if capture_traces else None,
            objective_scores=by_metric,
        )


def _trace(run: StudentRun) -> list[TraceStep]:
    """Return the steps; where one broke, it stands for all steps of its component."""
    broken = [step for step in run.prediction.steps if step.failure is not None]
    predictor = components(run.program).get(broken[-1].component) if broken else None
    if predictor is None or run.prediction.failure is None:
        return run.trace
    wrote = run.unreadable if run.unreadable is not None else run.prediction.failure
    others = [step for step in run.trace if step[0] is not predictor]
    return [*others, (predictor, dict(broken[-1].inputs), dspy.Prediction(unusable_answer=wrote))]


def _feedback(
    component: str,
    predictor_output: object,  # noqa: ARG001 - called by name
    predictor_inputs: object,  # noqa: ARG001
    module_inputs: Any,
    module_outputs: Any,
    captured_trace: object,  # noqa: ARG001
) -> dict[str, Any]:
    run = run_behind(module_outputs)
    if run is None:
        return {"score": 0.0, "feedback": "The program gave no prediction."}
    return {"score": 0.0, "feedback": feedback_on(run, engine_example(module_inputs), ComponentName(component))}


def _key(candidate: Texts, dataset: Mapping[str, Any], names: list[str]) -> object:
    return tuple(sorted(candidate.items())), tuple(names), repr({name: list(dataset[name]) for name in sorted(dataset)})
