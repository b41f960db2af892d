"""SIMBA: samples the agent at work, and where tries of one example differ it keeps the good one or learns a rule.

Neighbours' habits that this module answers to (dspy 3.4.1):

- It fires no event and never evaluates with `Evaluate`: trials are gathered from the metric.
- It chooses its winner on the train split. Here every winner it kept is submitted, and val decides.
- It asserts that the train split is at least as large as a minibatch; here the minibatch is cut to fit.
- `prepare_models_for_resampling` writes a rollout id into the teacher's model; no teacher is handed in here.
- A rule needs the source of the program's class and is lost without one; here an outline takes its place.
- It pickles what it samples under one set of rollout ids at every step; the ledger then answers the repeats.
"""

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import dspy
import orjson
from dspy import teleprompt
from dspy.teleprompt.simba_utils import OfferFeedback, append_a_demo, inspect_modules, recursive_mask

from dspy_optimization.adapters.dspy.run_record import failure_in_words
from dspy_optimization.adapters.dspy.scoring import Scored
from dspy_optimization.adapters.dspy.search import DspySearch, dspy_search
from dspy_optimization.adapters.dspy.student import run_behind
from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.example import ExampleId, Split
from dspy_optimization.algorithms.option_checks import above, at_least
from dspy_optimization.algorithms.problem import Forecast, Problem, Progress, SearchRun, Shape
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.events import Json

LONGEST_INPUT = 100_000
"""Characters of an input that a demo keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SIMBAOptions:
    """How many steps, how large."""

    steps: int = 8
    """Minibatches to learn from, at least 1."""
    minibatch_size: int = 16
    """Train examples a step; cut to the size of the train split. At least 1."""
    candidates: int = 4
    """Samples an example, and new candidates a step. At least 2."""
    max_demos: int = 4
    """Demos a component may hold before some are dropped; 0: rules alone."""
    sampling_temperature: float = 0.2
    """How strongly better candidates are preferred when samples are drawn, above 0; lower is stronger."""
    candidate_temperature: float = 0.2
    """The same when new candidates are built."""

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("minibatch_size", self.minibatch_size, 1)
        at_least("candidates", self.candidates, 2)
        at_least("max_demos", self.max_demos, 0)
        above("sampling_temperature", self.sampling_temperature, 0)
        above("candidate_temperature", self.candidate_temperature, 0)


class SIMBA:
    """Learns from tries of the same example that differ in success."""

    name: ClassVar[str] = "simba"
    description: ClassVar[str] = "samples each example several times and learns demos and rules from the differences"
    options: ClassVar[type] = SIMBAOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search takes at most."""
        chosen = cast("SIMBAOptions", options)
        size = min(chosen.minibatch_size, shape.n_train)
        learning = chosen.steps * size * (2 * chosen.candidates + 1)
        choosing = (chosen.candidates + 1) * (shape.n_train + shape.n_val)
        return Forecast(runs=learning + choosing, proposals=chosen.steps * chosen.candidates)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Record trials on train and submit every winner."""
        options = cast("SIMBAOptions", problem.options)
        with dspy_search(problem, run, self.name, reflection_parameters={"temperature": 1.0}) as search:
            size = min(options.minibatch_size, len(search.trainset))
            watch = _Samples(search, options, size)
            optimizer = teleprompt.SIMBA(
                metric=watch,
                bsize=size,
                num_candidates=options.candidates,
                max_steps=options.steps,
                max_demos=options.max_demos,
                prompt_model=search.reflection,
                num_threads=search.threads,
                temperature_for_sampling=options.sampling_temperature,
                temperature_for_candidates=options.candidate_temperature,
            )
            optimizer.strategies = [watch.learning(strategy) for strategy in _strategies(options)]
            search.book.begin("steps")
            best = optimizer.compile(search.student, trainset=search.trainset, seed=search.problem.seed)
            watch.flush()
            for winner in best.candidate_programs:
                search.submit(winner["program"])


def _strategies(options: SIMBAOptions) -> list[Callable[..., bool]]:
    return [append_a_demo(LONGEST_INPUT), append_a_rule] if options.max_demos else [append_a_rule]


def append_a_rule(bucket: list[dict[str, Any]], system: Any, **context: Any) -> bool:
    """Ask what the better try did right, and add the advice to the instructions.

    As `dspy.teleprompt.simba_utils.append_a_rule`; ours: a program without source is shown in outline, and tries that
    did equally well teach nothing (DSPy then compares a try with nothing at all).
    """
    good, bad = bucket[0], bucket[-1]
    if (
        good["score"] <= context["batch_10p_score"]
        or bad["score"] >= context["batch_90p_score"]
        or good["score"] <= bad["score"]
    ):
        return False
    names = context["predictor2name"]
    asked = {
        "program_code": program_outline(system),
        "modules_defn": inspect_modules(system),
        "program_inputs": {**good["example"].inputs()},
        "oracle_metadata": {**good["example"].labels()},
        "better_program_trajectory": _trajectory(good, names),
        "better_program_outputs": dict(good["prediction"] or {}),
        "worse_program_trajectory": _trajectory(bad, names),
        "worse_program_outputs": dict(bad["prediction"] or {}),
        "worse_reward_value": float(bad["score"]),
        "better_reward_value": float(good["score"]),
        "worse_reward_info": _why(bad),
        "better_reward_info": _why(good),
        "module_names": [name for name, _ in system.named_predictors()],
    }
    texts = {name: value if isinstance(value, str) else _json(value) for name, value in asked.items()}
    with dspy.context(trace=[], lm=context["prompt_model"]):
        advice = dspy.Predict(OfferFeedback)(**texts).module_advice
    for name, predictor in system.named_predictors():
        if name in advice:
            text = f"{predictor.signature.instructions}\n\n{advice[name]}"
            predictor.signature = predictor.signature.with_instructions(text)
    return True


def program_outline(program: Any) -> str:
    """Return the source of the program's class, or what it asks for where there is no source."""
    try:
        return inspect.getsource(type(program))
    except (OSError, TypeError):
        lines = [f"{name}: {predictor.signature.signature}" for name, predictor in program.named_predictors()]
        return "\n".join([f"class {type(program).__name__}(dspy.Module):  # predictors, in the order they run", *lines])


def _trajectory(sample: Mapping[str, Any], names: Mapping[int, str]) -> list[dict[str, Any]]:
    return [
        {"module_name": names[id(predictor)], "inputs": dict(inputs), "outputs": dict(outputs)}
        for predictor, inputs, outputs in sample["trace"]
        if id(predictor) in names
    ]


def _why(sample: Mapping[str, Any]) -> dict[str, str]:
    run = run_behind(sample["prediction"])
    if run is None or run.result is None:
        return {}
    words = {metric: score.feedback for metric, score in run.result.scores.items() if score.feedback}
    return words | ({"failure": run.prediction.failure} if run.prediction.failure is not None else {})


def _json(value: object) -> str:
    return orjson.dumps(recursive_mask(value), option=orjson.OPT_INDENT_2).decode()


class _Samples:
    """The metric SIMBA is given: what it sees is all anybody sees of SIMBA. Thread-safe."""

    def __init__(self, search: DspySearch, options: SIMBAOptions, size: int) -> None:
        self._search = search
        self._steps = options.steps
        self._size = size
        self._samples_a_step = size * options.candidates
        self._lock = threading.Lock()
        self._sampled = 0
        self._results: dict[Fingerprint, tuple[Candidate, dict[ExampleId, ExampleResult]]] = {}
        self._learned = 0
        self._failed: list[str] = []

    def __call__(self, example: Any, prediction: Any) -> Scored:
        """Return the utility, and count the sample or keep the result."""
        scored = self._search.metric.scored(example, prediction)
        run = run_behind(prediction)
        if run is None or _is_drawn(run.program):
            self._count()
        else:
            candidate = self._search.book.candidate(run.program)
            with self._lock:
                results = self._results.setdefault(candidate.fingerprint, (candidate, {}))[1]
                results[scored.result.example_id] = scored.result
        return scored

    def learning(self, strategy: Callable[..., bool]) -> Callable[..., bool]:
        """Return the strategy, reporting what comes of it; SIMBA runs strategies one by one in its own thread."""

        def learn(bucket: list[dict[str, Any]], system: Any, **context: Any) -> bool:
            self.flush()
            try:
                learned = strategy(bucket, system, **context)
            except (dspy.AdapterParseError, dspy.LMError, ValueError, TypeError) as error:
                self._failed.append(failure_in_words(error))
                raise
            self._learned += learned
            return learned

        learn.__name__ = getattr(strategy, "__name__", "strategy")
        return learn

    def flush(self) -> None:
        """Write down what was measured since the last time: one trial a candidate, in the order of fingerprints."""
        with self._lock:
            measured, self._results = self._results, {}
        for _, (candidate, results) in sorted(measured.items()):
            ordered = [results[example_id] for example_id in sorted(results)]
            self._search.book.write(candidate, Split.TRAIN, ordered)

    def _count(self) -> None:
        with self._lock:
            self._sampled += 1
            step, within = divmod(self._sampled, self._samples_a_step)
            last = self._failed[-1] if self._failed else None
            data: dict[str, Json] = {"learned": self._learned, "failed": len(self._failed), "last_failure": last}
        if within == 0:
            # One report a step, made by whichever thread finishes its last sample.
            self._search.run.report(Progress(phase="sampled", iteration=step, iterations=self._steps, data=data))


def _is_drawn(program: Any) -> bool:
    """Say whether SIMBA gave the program a model of its own to draw a sample with."""
    return any(predictor.lm is not None for predictor in program.predictors())
