"""The course of one optimization: baseline, searches, choice, gate, ablation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.example import Example, Split
from dspy_optimization.agents.objective import Direction
from dspy_optimization.algorithms.problem import Problem, Progress, Shape
from dspy_optimization.errors import BudgetSpent, CancelRequested, InfrastructureError, TargetMet
from dspy_optimization.evaluation.calls import CallScope
from dspy_optimization.evaluation.gate import (
    Estimate,
    GateTerms,
    Measurement,
    ValidatedResult,
    paired_difference,
    validate,
)
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.trial import ExampleResult, Trial
from dspy_optimization.events import Event, EventType, Json
from dspy_optimization.optimization.ablation import changes
from dspy_optimization.optimization.contender import Contender, contenders
from dspy_optimization.optimization.front import Front, front_of
from dspy_optimization.optimization.held_back import PerExample, Reserve, check_spend, measured_per_example
from dspy_optimization.optimization.policy import Pick, Weights, pick
from dspy_optimization.optimization.portfolio import Turn, TurnOutcome, TurnReport, run_portfolio
from dspy_optimization.optimization.result import Improvement
from dspy_optimization.optimization.search import Scoreboard, Search, SearchContext
from dspy_optimization.optimization.search_progress import SEARCH_BEGINS, SEARCH_ENDS, SearchProgress, forecast_calls
from dspy_optimization.optimization.turns import AlgorithmFailure, TurnTaker
from dspy_optimization.optimization.workplace import Workplace
from dspy_optimization.statistics import Headroom, Verdict, check_reuse, headroom


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the course came to."""

    baseline: Candidate
    chosen: Candidate
    algorithm: str | None
    """Whose candidate it is; None for the baseline."""
    validated: ValidatedResult | None
    improvements: tuple[Improvement, ...]
    pick: Pick | None
    """Who was taken by the policy, and why; None before the baseline was measured."""
    front: Front | None
    """As `pick`."""
    iterations: int
    trials: int
    ended_because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Baseline:
    results: tuple[ExampleResult, ...]
    each: PerExample
    asked_calls: int
    """Distinct calls it took."""


def _nothing() -> None:
    pass


class Course:
    """Carries one optimization out. `StopSearch` other than caps, target and cancel passes through."""

    def __init__(self, workplace: Workplace) -> None:
        self._work = workplace
        ceilings = {name: one.ceiling for name, one in workplace.metrics.items() if one.ceiling is not None}
        objectives = replace(workplace.objectives, ceilings=ceilings)
        self._scoreboard = Scoreboard(objectives, workplace.dataset[Split.VAL])
        self._failures: list[AlgorithmFailure] = []
        self._iterations: dict[str, int] = {}

    def carry_out(self) -> Outcome:
        """Return what the optimization came to; the best so far when a person cancelled it."""
        work = self._work
        ended = "finished"
        settled: tuple[Verdict, str] | None = None
        validated: ValidatedResult | None = None
        try:
            baseline = self._measure_baseline()
            room = self._headroom(baseline)
            if room is not None and room.exhausted:
                ended, settled = "no_headroom", (Verdict.NO_HEADROOM, room.reason)
            elif work.policy.ends_at_targets and self._target_met(baseline.results):
                ended = "target_met"
                settled = (Verdict.NO_HEADROOM, "The baseline reaches every target on val: nothing to improve.")
            else:
                ended = self._search(baseline)
                self._check_failures()
            chosen = self._choose()
            if settled is None and chosen.fingerprint == work.agent.baseline.fingerprint:
                settled = (Verdict.NO_IMPROVEMENT, self._why_nothing())
            validated = self._gate(chosen, settled)
            improvements = self._ablate(chosen) if settled is None else ()
        except CancelRequested:
            return self._outcome(self._choose(), validated, (), "cancelled")
        except BudgetSpent as reason:
            return self._outcome(self._choose(), validated, (), reason.cap)
        return self._outcome(chosen, validated, improvements, ended)

    def _outcome(
        self,
        chosen: Candidate,
        validated: ValidatedResult | None,
        improvements: tuple[Improvement, ...],
        ended_because: str,
    ) -> Outcome:
        baseline = self._work.agent.baseline
        complete = self._scoreboard.complete()
        best = next((one for one in complete if one.candidate == chosen), None)
        return Outcome(
            baseline=baseline,
            chosen=chosen,
            algorithm=best.algorithm if best is not None and chosen != baseline else None,
            validated=validated,
            improvements=improvements,
            pick=self._pick(),
            front=self._front(chosen),
            iterations=sum(self._iterations.values()),
            trials=len(complete),
            ended_because=ended_because,
        )

    def _contenders(self) -> Sequence[Contender]:
        """Return everybody measured on all of val; nobody before the baseline is."""
        found = contenders(self._scoreboard, self._work.agent.baseline)
        return found if any(one.is_baseline for one in found) else ()

    def _pick(self) -> Pick | None:
        found = self._contenders()
        return pick(self._work.policy, found) if found else None

    def _choose(self) -> Candidate:
        """Return the candidate that the policy takes on val; the baseline where nothing is better than it."""
        taken = self._pick()
        if taken is None:
            return self._work.agent.baseline
        return next(one.candidate for one in self._contenders() if one.fingerprint == taken.candidate)

    def _why_nothing(self) -> str:
        taken = self._pick()
        reason = "No candidate was better than the baseline on val."
        if taken is None or taken.policy == Weights.type:
            return reason
        return f"{reason} By the policy {taken.policy}, {taken.reason}."

    def _front(self, chosen: Candidate) -> Front | None:
        work, found = self._work, self._contenders()
        if not found:
            return None
        return front_of(
            found,
            self._scoreboard.objectives,
            work.dataset[Split.VAL],
            chosen.fingerprint,
            completed=work.completed(),
            unbounded=frozenset(name for name, metric in work.metrics.items() if metric.ceiling is None),
            seed=work.request.constraints.seed,
        )

    def _measure_baseline(self) -> _Baseline:
        work = self._work
        self._phase("baseline", 0.02)
        val = work.dataset[Split.VAL]
        began = work.elapsed_seconds()
        stop = StopSignal(work.stop)
        scope = work.session.scope("baseline", stop)
        search = Search(self._context(), "baseline", scope, stop)
        results = search.evaluate(work.agent.baseline, val)
        each = measured_per_example(
            scope.taken, examples=len(results), seconds=max(work.elapsed_seconds() - began, 1e-6)
        )
        scales = {
            item.metric: sum(result.scores[item.metric].value for result in results) / len(results)
            for item in work.objectives.items
        }
        self._scoreboard.objectives = self._scoreboard.objectives.with_scales(scales)
        search.record(work.agent.baseline, Split.VAL, results, 0)
        search.report(
            Progress(
                phase="baseline", iteration=1, iterations=1, candidate=work.agent.baseline, score=self._best_score()
            )
        )
        return _Baseline(results=results, each=each, asked_calls=scope.asked_calls)

    def _best_score(self) -> float | None:
        best = self._scoreboard.best()
        return self._scoreboard.score(best) if best is not None else None

    def _headroom(self, baseline: _Baseline) -> Headroom | None:
        """Return the room above the baseline; None where the primary metric has no best value."""
        work = self._work
        primary = work.objectives.primary
        metric = work.metrics[primary.metric]
        if metric.ceiling is None or primary.direction is Direction.MINIMIZE or metric.ceiling <= metric.floor:
            return None
        return headroom(
            [result.scores[primary.metric].value for result in baseline.results],
            minimum_effect=max(work.request.constraints.min_improvement_threshold, 1e-9),
            floor=metric.floor,
            ceiling=metric.ceiling,
        )

    def _target_met(self, results: Sequence[ExampleResult]) -> bool:
        """Say whether every objective that has a target reaches it; False when none has one."""
        targets = [item for item in self._work.objectives.items if item.target_value is not None and not item.guardrail]
        return bool(targets) and all(
            item.oriented(sum(result.scores[item.metric].value for result in results) / len(results))
            >= item.oriented(item.target_value if item.target_value is not None else 0.0)
            for item in targets
        )

    def _search(self, baseline: _Baseline) -> str:
        """Let the portfolio search; return why it ended."""
        work = self._work
        self._phase("search", SEARCH_BEGINS)
        reserve = Reserve(
            work.request.constraints.limits,
            baseline.each,
            n_test=len(work.dataset[Split.TEST]),
            n_val=len(work.dataset[Split.VAL]),
        )
        stop = StopSignal(work.stop)
        scopes: dict[str, CallScope] = {}

        def open_calls(label: str, stop: StopSignal, allowance_calls: int | None) -> CallScope:
            # Only what is paid is checked: a replay after a crash in the gate has spent more than a search may,
            # and has to come to the same candidate all the same.
            scopes[label] = work.session.scope(
                label,
                stop,
                allowance_calls,
                admit=lambda: check_spend(reserve.limits, work.session.bill().total, work.elapsed_seconds()),
            )
            return scopes[label]

        allowed = reserve.limits.max_lm_calls
        max_calls = None if allowed is None else max(allowed - baseline.asked_calls, 0)
        forecast = forecast_calls(work.portfolio, Shape.of(work.agent, work.dataset), baseline.each.calls)
        progress = SearchProgress(forecast if max_calls is None else min(forecast, max_calls), work.advance)
        taker = TurnTaker(
            context=self._context(stop, reserve, reported=lambda: progress.look(scopes)),
            stop=stop,
            open_calls=open_calls,
            failed=self._failures.append,
        )
        try:
            reports = run_portfolio(
                work.portfolio.choices, max_calls=max_calls, take=lambda turn: self._take(taker, turn)
            )
        except TargetMet:
            return "target_met"
        except BudgetSpent as reason:
            return reason.cap
        cut_short = any(report.outcome is TurnOutcome.OUT_OF_CALLS for report in reports)
        return "max_lm_calls" if cut_short else "finished"

    def _take(self, taker: TurnTaker, turn: Turn) -> TurnReport:
        algorithm = self._work.portfolio.algorithms[turn.choice.name]
        report = taker.take(turn, algorithm, self._problem(turn.choice.name))
        self._iterations[turn.choice.name] = report.iterations
        return report

    def _problem(self, algorithm: str) -> Problem:
        work = self._work
        return Problem(
            agent=work.agent.config,
            runnable=work.agent,
            baseline=work.agent.baseline,
            frozen=work.agent.frozen,
            train=work.dataset[Split.TRAIN],
            val=work.dataset[Split.VAL],
            objectives=self._scoreboard.objectives,
            seed=work.request.constraints.seed,
            concurrency=work.request.constraints.concurrency,
            options=work.portfolio.options[algorithm],
            computing=work.computing,
            known=tuple(one.candidate for one in self._scoreboard.complete() if one.algorithm != algorithm),
        )

    def _check_failures(self) -> None:
        """Raise when every algorithm broke: there was no search then."""
        broken = {failure.algorithm: failure.error for failure in self._failures}
        if broken and set(broken) == {choice.name for choice in self._work.portfolio.choices}:
            listed = "; ".join(f"{name}: {error}" for name, error in broken.items())
            raise InfrastructureError(
                f"wanted: a search; found: every algorithm failed ({listed}); possible: other algorithms or options"
            )

    def _context(
        self,
        stop: StopSignal | None = None,
        reserve: Reserve | None = None,
        reported: Callable[[], None] = _nothing,
    ) -> SearchContext:
        work = self._work

        def after_trial(trial: Trial) -> None:
            if reserve is not None:
                reserve.meet(trial.results)
            if stop is not None and work.policy.ends_at_targets and trial.split is Split.VAL:
                results = self._scoreboard.on_val(trial.candidate)
                if results is not None and self._target_met(results):
                    stop.stop(TargetMet("a candidate reaches every target on val"))

        return SearchContext(
            optimization_id=work.request.id,
            evaluator=work.evaluator,
            scoreboard=self._scoreboard,
            trials=work.trials,
            emit=work.emit,
            now=work.now,
            paid_calls=lambda: work.session.paid_calls,
            settle=work.session.flush,
            after_trial=after_trial,
            standing=self._standing,
            reported=reported,
        )

    def _standing(self) -> Mapping[str, Json]:
        total = self._work.session.bill().total
        return {
            "lm_calls": total.calls,
            "cost_usd": total.cost_usd,
            "tokens": total.tokens,
            "elapsed_seconds": self._work.elapsed_seconds(),
        }

    def _gate(self, chosen: Candidate, settled: tuple[Verdict, str] | None) -> ValidatedResult:
        """Open the test split, once, for the baseline and the chosen candidate."""
        work = self._work
        self._phase("gate", SEARCH_ENDS)
        examples = work.dataset[Split.TEST]
        use = work.open_test_split()
        check_reuse(work.alpha, use)
        stop = StopSignal(work.stop)
        scope = work.session.scope("gate", stop)
        baseline = self._measure(work.agent.baseline, examples, scope, stop)
        optimized = baseline if settled is not None else self._measure(chosen, examples, scope, stop)
        terms = GateTerms(
            dataset=work.dataset.version,
            objectives=self._scoreboard.objectives,
            alpha=work.alpha,
            minimum_effect=work.request.constraints.min_improvement_threshold,
            test_split_use=use,
            seed=work.request.constraints.seed,
        )
        validated = validate(examples, baseline, optimized, terms, settled=settled)
        primary = validated.objectives[validated.primary]
        self._tell(
            EventType.VERDICT,
            {
                "objective": validated.primary,
                "verdict": validated.verdict.value,
                "difference": primary.difference.value,
                "interval": [primary.difference.low, primary.difference.high],
                "p_value": primary.p_value,
                "reason": validated.reason,
            },
            key="verdict",
        )
        return validated

    def _measure(
        self, candidate: Candidate, examples: Sequence[Example], scope: CallScope, stop: StopSignal
    ) -> Measurement:
        results = self._work.evaluator.evaluate(candidate, examples, scope, stop)
        return Measurement(candidate=candidate, results=results)

    def _ablate(self, chosen: Candidate) -> tuple[Improvement, ...]:
        """Return what each change is worth on val; the ones the budget did not reach are missing."""
        work = self._work
        self._phase("ablation", 0.95)
        val = sorted(work.dataset[Split.VAL], key=lambda example: example.id)
        full = self._scoreboard.on_val(chosen)
        stop = StopSignal(work.stop)
        scope = work.session.scope("ablation", stop)
        found: list[Improvement] = []
        for change in changes(work.agent.baseline, chosen):
            without = self._scoreboard.on_val(change.without)
            try:
                results = without if without is not None else work.evaluator.evaluate(change.without, val, scope, stop)
            except BudgetSpent:
                break
            if full is not None:
                worth: Estimate = paired_difference(
                    work.objectives.primary, val, results, full, seed=work.request.constraints.seed
                )
                found.append(Improvement(component=change.component, part=change.part, worth=worth))
        return tuple(found)

    def _phase(self, phase: str, progress: float) -> None:
        self._work.stop.check()
        self._work.advance(progress)
        self._tell(EventType.PHASE_STARTED, {"phase": phase}, key=f"phase/{phase}")

    def _tell(self, event: EventType, data: Mapping[str, Json], key: str) -> None:
        self._work.emit(
            Event(type=event, optimization_id=self._work.request.id, at=self._work.now(), data=data, key=key)
        )
