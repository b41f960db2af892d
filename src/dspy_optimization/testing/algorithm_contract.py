"""What every `Algorithm` keeps: a suite to inherit from, and the same as a function.

class TestMine(AlgorithmContract):
    algorithm = Mine()
    options = {"rounds": 2}           # as in a request; leave it out for the defaults

    findings = check_algorithm(Mine())

Searches run on a small world of their own (`algorithm_world`), each in a thread with a limit, so that one that never
ends is a finding too. A process is what keeps everything else away (a crash, an `os._exit`, all the memory):
`adapters.algorithm_checks` runs this suite in one before an algorithm is registered.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from dspy_optimization.agents.candidate import canonical_json
from dspy_optimization.algorithms.option_fields import option_fields, options_from_json
from dspy_optimization.algorithms.problem import Algorithm
from dspy_optimization.algorithms.registry import what_is_wrong
from dspy_optimization.algorithms.rules import Outcome, RuleFinding
from dspy_optimization.errors import EngineError, StopSearch, TurnOver
from dspy_optimization.evaluation.model import Role
from dspy_optimization.events import Json
from dspy_optimization.optimization.guarded_run import Refused
from dspy_optimization.testing.algorithm_bench import (
    END_SECONDS,
    LIMIT_SECONDS,
    Bench,
    Course,
    RuleBroken,
    check_ended,
)
from dspy_optimization.testing.algorithm_world import CALLS_PER_RUN, Trouble
from dspy_optimization.testing.memory_ledger import MemoryLedger

_SHOWN = 3


def check_algorithm(
    algorithm: Algorithm,
    options: Mapping[str, Json] | None = None,
    *,
    limit_seconds: float = LIMIT_SECONDS,
    begins: Callable[[str], None] = lambda _: None,
    ended: Callable[[RuleFinding], None] = lambda _: None,
    digest: Callable[[str], None] = lambda _: None,
) -> tuple[RuleFinding, ...]:
    """Return what every rule finds.

    Args:
        algorithm: any object that should be one.
        options: for it, as in a request; None: what its attribute `check_options` says, else its defaults.
        limit_seconds: how long one of its searches may take.
        begins: told each rule before it is tried.
        ended: told each finding at once: whoever watches from outside knows how far it came.
        digest: told what a search comes to, as `search_digest` says it, when there is a search.
    """
    bench = Bench(algorithm, _given(algorithm) if options is None else options, limit_seconds)
    findings: list[RuleFinding] = []
    for rule in RULES:
        begins(rule.name)
        finding = rule.finding(bench, stop=bool(findings) and any(_ends_the_check(one) for one in findings))
        findings.append(finding)
        ended(finding)
    if not any(_ends_the_check(one) for one in findings):
        digest(bench.straight.digest)
    return tuple(findings)


def _given(algorithm: object) -> Mapping[str, Json]:
    given = getattr(algorithm, "check_options", {})
    return dict(given) if isinstance(given, Mapping) else {}


def _ends_the_check(finding: RuleFinding) -> bool:
    return finding.outcome is Outcome.BROKEN and finding.rule in _FIRST


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing an algorithm keeps."""

    name: str
    check: Callable[[Bench], None]
    """Raises `RuleBroken`."""

    def finding(self, bench: Bench, *, stop: bool = False) -> RuleFinding:
        """Return whether it is kept; unchecked when an earlier finding makes it pointless."""
        if stop:
            return RuleFinding(
                rule=self.name,
                outcome=Outcome.UNCHECKED,
                wanted="a search that runs",
                found="none: see the rules before",
                possible="mend those first",
            )
        try:
            self.check(bench)
        except RuleBroken as broken:
            return RuleFinding(
                rule=self.name,
                outcome=Outcome.BROKEN,
                wanted=broken.wanted,
                found=broken.found,
                possible=broken.possible,
            )
        return RuleFinding(rule=self.name, outcome=Outcome.KEPT)


def _describes_itself(bench: Bench) -> None:
    wrong = what_is_wrong(bench.algorithm)
    if wrong is not None:
        raise RuleBroken("an algorithm with name, description, options, forecast and search", wrong, "add it")
    options = bench.algorithm.options
    if not getattr(getattr(options, "__dataclass_params__", None), "frozen", False):
        raise RuleBroken("options that cannot change", f"{options.__name__} is not frozen", "@dataclass(frozen=True)")
    try:
        canonical_json([dataclasses.asdict(one) for one in option_fields(options)])
        made, default = options_from_json(bench.algorithm.name, options, {}), options()
        _ = bench.options
    except (EngineError, TypeError, ValueError, NameError) as error:
        raise RuleBroken(
            "options of plain types (int, float, bool, str, Literal, tuple) that accept their own defaults",
            f"{type(error).__name__}: {error}",
            "state types and defaults that fit each other",
        ) from error
    if made != default:
        raise RuleBroken("options that are equal when they hold the same", f"{made} and {default}", "use a dataclass")
    if not bench.algorithm.description.strip():
        raise RuleBroken("a description of what it does", "an empty text", "one sentence in description")


def _forecasts(bench: Bench) -> None:
    try:
        forecast = bench.algorithm.forecast(bench.options, bench.world.shape)
    except Exception as error:
        raise RuleBroken(
            "a forecast for any size of problem", f"{type(error).__name__}: {error}", "compute it from the shape alone"
        ) from error
    for name in ("runs", "proposals"):
        value = getattr(forecast, name, None)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise RuleBroken(f"a whole number from 0 up in forecast.{name}", repr(value), "return Forecast(runs=…)")


def _searches_to_its_end(bench: Bench) -> None:
    _ = bench.straight


def _keeps_its_forecast(bench: Bench) -> None:
    forecast = bench.algorithm.forecast(bench.options, bench.world.shape)
    roles = list(bench.straight.asked_with_results.values())
    limits = ((Role.TASK, forecast.runs * CALLS_PER_RUN, "runs"), (Role.REFLECTION, forecast.proposals, "proposals"))
    for role, most, name in limits:
        asked = roles.count(role)
        if asked > most:
            raise RuleBroken(
                f"at most {most} different calls of the {role.value} model, as forecast.{name} says",
                f"{asked}, with what measuring the submitted candidates on val takes",
                "forecast an upper bound, or ask for less",
            )


def _comes_to_something(bench: Bench) -> None:
    course = bench.straight
    if not course.submitted and not course.recorded:
        raise RuleBroken(
            "a candidate that is recorded on val or submitted", "neither", "run.submit the best candidate it knows"
        )


def _reports(bench: Bench) -> None:
    reports = bench.straight.reports
    if not reports:
        raise RuleBroken("at least one progress report", "none", "run.report(Progress(…)) once an iteration")
    reached: dict[str, int] = {}
    for phase, iteration, iterations in reports:
        before = reached.get(phase, 0)
        if not phase or iteration < before or (iterations is not None and iteration > iterations):
            raise RuleBroken(
                "reports with a phase, in which iteration never goes back and never exceeds iterations",
                f"phase {phase!r}, iteration {iteration} of {iterations} after {before}",
                "count up, and name each phase once",
            )
        reached[phase] = iteration


def _leaves_its_process_alive(bench: Bench) -> None:
    _ = bench.first  # whoever watches from outside knows what it was that ended it


def _records_what_was_measured(bench: Bench) -> None:
    _without_refusals(bench.first, {Refused.MADE_UP, Refused.FOREIGN})


def _keeps_frozen(bench: Bench) -> None:
    _without_refusals(bench.first, {Refused.FROZEN, Refused.UNKNOWN})


def _sees_no_test_data(bench: Bench) -> None:
    course = bench.first
    _without_refusals(course, {Refused.SEALED})
    said = course.bodies + "".join(canonical_json(one.to_json()) for one in course.submitted)
    said += "".join(canonical_json(one.candidate.to_json()) for one in course.recorded)
    seen = [word for word in bench.world.sealed if word in said]
    if seen:
        raise RuleBroken(
            "nothing of the test split in questions and candidates",
            f"{len(seen)} of its words",
            "work with problem.train and problem.val alone",
        )


def _without_refusals(course: Course, kinds: set[Refused]) -> None:
    for one in course.refusals:
        if one.what in kinds:
            wanted, _, rest = one.sentence.removeprefix("wanted: ").partition("; found: ")
            found, _, possible = rest.partition("; possible: ")
            raise RuleBroken(wanted, found, possible)


def _leaves_the_problem(bench: Bench) -> None:
    if bench.straight.problem_changed:
        raise RuleBroken(
            "a problem that is as it was", "examples, baseline or options were changed", "copy, then change"
        )


def _leaves_no_thread(bench: Bench) -> None:
    if bench.again.threads:
        raise RuleBroken(
            "no thread that goes on after the search",
            ", ".join(bench.again.threads[:_SHOWN]),
            "a with block around the pool",
        )


def _leaves_the_process(bench: Bench) -> None:
    changes = [
        *bench.again.changes,
        *(
            f"{name} (seeded)"
            for name, one, two in zip(
                ("the global generator of random", "that of numpy"),
                bench.straight.generators,
                bench.again.generators,
                strict=True,
            )
            if one == two
        ),
    ]
    if changes:
        raise RuleBroken(
            "a process that is as it was",
            f"changed: {', '.join(changes)}",
            "problem.rng(step) for chance, arguments instead of the environment, run.report instead of printing",
        )


def _is_the_same_again(bench: Bench) -> None:
    _same(bench.straight, bench.again, "two searches with the same seed")


def _does_not_depend_on_order(bench: Bench) -> None:
    alone = _ended(bench, Trouble(), concurrency=1)
    for order in ("a", "b"):
        crowd = _ended(bench, Trouble(shuffled=order), concurrency=8)
        _same(alone, crowd, "one call at a time, and eight at once that are answered in another order")


def _ends_when_told(bench: Bench) -> None:
    for trouble in (
        *(Trouble(stop_at_call=number) for number in _places(bench.straight.calls)),
        Trouble(stop_at="record"),
        Trouble(stop_at="report"),
    ):
        _check_stopped(bench.search(trouble), _described(trouble))


def _ends_when_cancelled(bench: Bench) -> None:
    for number in _places(bench.straight.calls):
        course = bench.search(Trouble(cancel_at_call=number))
        # Who has asked its last call may have nothing more to ask, and never hear of it.
        if number < bench.straight.calls or course.error is not None or not course.is_over:
            _check_stopped(course, f"cancelled while call {number} is answered")


def _ends_with_its_turn(bench: Bench) -> None:
    asked = len(bench.straight.asked)
    for allowance in dict.fromkeys((0, asked // 2, asked - 1)):
        if 0 <= allowance < asked:
            course = bench.search(Trouble(allowance_calls=allowance))
            _check_stopped(course, f"a turn of {allowance} calls", kind=TurnOver)


def _goes_on_where_it_stopped(bench: Bench) -> None:
    straight = bench.straight
    for number in _places(straight.calls):
        ledger = MemoryLedger()
        stopped = bench.search(Trouble(stop_at_call=number), ledger=ledger)
        again = _ended(bench, Trouble(), ledger=ledger)
        _same(straight, again, f"a search, and one that was stopped at call {number} and begun again")
        if stopped.paid + again.paid > straight.paid:
            raise RuleBroken(
                f"{straight.paid} calls paid in all, however often it is stopped",
                f"{stopped.paid} before it was stopped at call {number}, and {again.paid} after",
                "ask the same questions again: the ledger answers them",
            )


def _ended(bench: Bench, trouble: Trouble, *, concurrency: int = 4, ledger: MemoryLedger | None = None) -> Course:
    course = bench.search(trouble, concurrency=concurrency, ledger=ledger)
    check_ended(course, bench.limit_seconds)
    return course


def _check_stopped(course: Course, when: str, kind: type[StopSearch] = StopSearch) -> None:
    let_through = "let StopSearch pass: no bare except, no except BaseException, and nothing asked in finally"
    if not course.is_over:
        raise RuleBroken(f"an end within {END_SECONDS:g} s ({when})", "it goes on", let_through)
    if course.told is None:
        return  # it never came so far, or made do with what it was allowed
    if course.after_end:
        raise RuleBroken(
            f"nothing asked after the end ({when})",
            f"{len(course.after_end)} more: {', '.join(course.after_end[:_SHOWN])}",
            let_through,
        )
    if course.error is None:
        raise RuleBroken(f"the stop passed through ({when})", "it was swallowed and the search returned", let_through)
    if not isinstance(course.error, kind):
        raise RuleBroken(f"{kind.__name__} ({when})", f"{type(course.error).__name__}: {course.error}", let_through)


def _described(trouble: Trouble) -> str:
    return f"stopped at its first {trouble.stop_at}" if trouble.stop_at else f"stopped at call {trouble.stop_at_call}"


def _places(calls: int) -> Sequence[int]:
    """Return the calls at which a search is stopped: the first, one in the middle, the last."""
    return tuple(dict.fromkeys(one for one in (1, (calls + 1) // 2, calls) if one > 0))


def _same(one: Course, other: Course, what: str) -> None:
    names = ("calls", "trials", "submitted candidates")
    for name, first, second in zip(names, one.content, other.content, strict=True):
        if first != second:
            raise RuleBroken(
                f"the same {name} ({what})",
                f"{_size(first)} and {_size(second)}, that differ",
                "draw from problem.rng(step) alone, sort what comes from sets and threads, and decide by values and "
                "not by who was first",
            )


def _size(found: object) -> int:
    return len(found) if isinstance(found, tuple | frozenset) else 0


_FIRST = (
    "describes itself",
    "forecasts",
    "records what was measured",
    "keeps what is frozen",
    "sees no test data",
    "searches to its end",
)
"""Without these there is no search to check."""

RULES = (
    Rule(name="describes itself", check=_describes_itself),
    Rule(name="forecasts", check=_forecasts),
    Rule(name="leaves its process alive", check=_leaves_its_process_alive),
    Rule(name="records what was measured", check=_records_what_was_measured),
    Rule(name="keeps what is frozen", check=_keeps_frozen),
    Rule(name="sees no test data", check=_sees_no_test_data),
    Rule(name="searches to its end", check=_searches_to_its_end),
    Rule(name="comes to something", check=_comes_to_something),
    Rule(name="keeps its forecast", check=_keeps_its_forecast),
    Rule(name="reports progress", check=_reports),
    Rule(name="leaves the problem as it is", check=_leaves_the_problem),
    Rule(name="leaves no thread", check=_leaves_no_thread),
    Rule(name="leaves the process as it is", check=_leaves_the_process),
    Rule(name="is the same again", check=_is_the_same_again),
    Rule(name="does not depend on the order of answers", check=_does_not_depend_on_order),
    Rule(name="ends when it is told to", check=_ends_when_told),
    Rule(name="ends when it is cancelled", check=_ends_when_cancelled),
    Rule(name="ends with its turn", check=_ends_with_its_turn),
    Rule(name="goes on where it stopped", check=_goes_on_where_it_stopped),
)
"""In the order in which they are checked."""


class AlgorithmContract:
    """Inherit and set `algorithm`; the options are as in a request."""

    algorithm: ClassVar[Algorithm]
    options: ClassVar[Mapping[str, Json] | None] = None
    """None: what the algorithm's attribute `check_options` says, else its defaults."""
    limit_seconds: ClassVar[float] = LIMIT_SECONDS

    def test_it_describes_itself(self) -> None:
        """Name, description, frozen options with defaults, forecast, search."""
        self.check("describes itself")

    def test_it_forecasts(self) -> None:
        """From options and shape alone."""
        self.check("forecasts")

    def test_it_leaves_its_process_alive(self) -> None:
        """What ends the process of a test ends all tests."""
        self.check("leaves its process alive")

    def test_it_searches_to_its_end(self) -> None:
        """By itself, without an error, soon."""
        self.check("searches to its end")

    def test_it_comes_to_something(self) -> None:
        """A candidate is recorded or submitted."""
        self.check("comes to something")

    def test_it_keeps_its_forecast(self) -> None:
        """What it asks for is no more than it forecast."""
        self.check("keeps its forecast")

    def test_it_reports_progress(self) -> None:
        """Iterations never go back."""
        self.check("reports progress")

    def test_it_records_what_was_measured(self) -> None:
        """Results are those of this candidate on examples of this split."""
        self.check("records what was measured")

    def test_it_keeps_what_is_frozen(self) -> None:
        """Candidates have the components of the baseline, the frozen ones unchanged."""
        self.check("keeps what is frozen")

    def test_it_sees_no_test_data(self) -> None:
        """Nothing of the test split is asked, recorded or submitted."""
        self.check("sees no test data")

    def test_it_leaves_the_problem_as_it_is(self) -> None:
        """Examples, baseline and options are shared."""
        self.check("leaves the problem as it is")

    def test_it_leaves_no_thread(self) -> None:
        """What it begins it ends."""
        self.check("leaves no thread")

    def test_it_leaves_the_process_as_it_is(self) -> None:
        """Global generators, environment, working directory, standard output."""
        self.check("leaves the process as it is")

    def test_it_is_the_same_again(self) -> None:
        """Same seed and answers: same calls, trials, results."""
        self.check("is the same again")

    def test_it_does_not_depend_on_the_order_of_answers(self) -> None:
        """One call at a time, or eight at once in any order."""
        self.check("does not depend on the order of answers")

    def test_it_ends_when_it_is_told_to(self) -> None:
        """A stop in any call passes through and nothing is asked after it."""
        self.check("ends when it is told to")

    def test_it_ends_when_it_is_cancelled(self) -> None:
        """Within one call."""
        self.check("ends when it is cancelled")

    def test_it_ends_with_its_turn(self) -> None:
        """When the calls of a turn are used up."""
        self.check("ends with its turn")

    def test_it_goes_on_where_it_stopped(self) -> None:
        """Begun again on the same ledger it pays for nothing twice and comes to the same."""
        self.check("goes on where it stopped")

    def check(self, name: str) -> None:
        """Fail when the rule of that name is broken."""
        given = _given(self.algorithm) if self.options is None else self.options
        finding = next(rule for rule in RULES if rule.name == name).finding(
            Bench(self.algorithm, given, self.limit_seconds)
        )
        if finding.outcome is not Outcome.KEPT:
            raise AssertionError(finding.sentence)


def search_digest(algorithm: Algorithm, limit_seconds: float = LIMIT_SECONDS) -> str:
    """Return the hash of what a search without trouble comes to; another process has to say the same.

    Raises:
        RuleBroken: it does not end by itself.
    """
    return Bench(algorithm, _given(algorithm), limit_seconds).straight.digest
