"""The verdict in words a manager can read, and what to do next."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from dspy_optimization.adapters.report.numbers import count, number, p_text, per_hundred, percent
from dspy_optimization.agents.objective import Objective
from dspy_optimization.evaluation.gate import Estimate, ObjectiveResult, ValidatedResult
from dspy_optimization.optimization.request import Optimization, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.statistics import Verdict


class Tone(StrEnum):
    """How good the news is; shown by a word and a sign, never by colour alone."""

    GOOD = "good"
    BAD = "bad"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What may be said, in plain sentences."""

    tone: Tone
    label: str
    """The verdict in a word or two."""
    headline: str
    """The answer to "is it better?"."""
    sentence: str
    """By how much and how sure."""
    evidence: str
    """What that rests on."""
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How scores of the primary objective are read."""

    objective: Objective
    right_or_wrong: bool
    """True: every score is 0 or 1 and 1 is better, so a mean is a share of cases answered right."""

    def level(self, value: float) -> str:
        """Return a mean as people read it."""
        return percent(value) if self.right_or_wrong else number(value)

    def gain(self, value: float) -> str:
        """Return the size of a difference, without its sign."""
        return f"{per_hundred(value)} in 100 cases" if self.right_or_wrong else number(abs(value))


def statement(optimization: Optimization, result: OptimizationResult | None, scale: Scale) -> Statement:
    """Return what may be said of an optimization in any state it can be in."""
    if result is None:
        return _without_result(optimization)
    if result.validated is None:
        return _not_validated(result)
    return _validated(result.validated, scale, optimization.request.constraints.min_improvement_threshold)


def _validated(validated: ValidatedResult, scale: Scale, minimum_effect: float) -> Statement:
    primary = validated.objectives[validated.primary]
    match validated.verdict:
        case Verdict.IMPROVED:
            return _improved(validated, primary, scale, minimum_effect)
        case Verdict.NO_IMPROVEMENT:
            return _no_improvement(validated, primary, scale, minimum_effect)
        case Verdict.REGRESSED:
            return _regressed(validated, primary, scale)
        case Verdict.INDECISIVE:
            return _indecisive(validated, primary, scale)
        case Verdict.INSUFFICIENT_DATA:
            return _insufficient(validated, primary, scale)
        case Verdict.NO_HEADROOM:
            return _no_headroom(validated, primary, scale)
        case _:
            assert_never(validated.verdict)


def _improved(validated: ValidatedResult, primary: ObjectiveResult, scale: Scale, minimum_effect: float) -> Statement:
    gain = scale.objective.oriented(primary.difference.value)
    small = gain < minimum_effect - 1e-9
    note = (
        f" The measured gain is smaller than the {scale.gain(minimum_effect)} you asked for: it is real, but it may "
        "not be worth a change."
        if small
        else ""
    )
    return Statement(
        tone=Tone.GOOD,
        label="improved",
        headline="Yes, it is better.",
        sentence=f"{_change(primary, scale)}{note}",
        evidence=f"Proven on {_cases(validated)}; {_chance(primary)}.{_reuse(validated)}",
        next_step="Weigh gain against price, then put it into use."
        if small
        else "Put it into use, on a part of the traffic first if you can, and watch the same metric there.",
    )


def _no_improvement(
    validated: ValidatedResult, primary: ObjectiveResult, scale: Scale, minimum_effect: float
) -> Statement:
    if primary.p_value is None:
        sentence = (
            f"No candidate beat it on the val examples, so there was nothing to prove. {_standing(primary, scale)}"
        )
        evidence = f"Measured on {_cases(validated)}.{_reuse(validated)}"
    else:
        wanted = scale.gain(minimum_effect) if minimum_effect > 0 else "any size that matters"
        sentence = f"A gain of {wanted} is ruled out. {_change(primary, scale)}"
        evidence = f"Measured on {_cases(validated)}; {p_text(primary.p_value)}.{_reuse(validated)}"
    return Statement(
        tone=Tone.OPEN,
        label="no improvement",
        headline="No. The agent you have stays the best.",
        sentence=sentence,
        evidence=evidence,
        next_step="Keep the agent you have. The same search again will find the same: try another algorithm, a "
        "stronger reflection model, or training examples that show what it gets wrong.",
    )


def _regressed(validated: ValidatedResult, primary: ObjectiveResult, scale: Scale) -> Statement:
    if primary.verdict is Verdict.REGRESSED:
        sentence = _change(primary, scale)
        evidence = f"Shown on {_cases(validated)}; {_chance(primary)}.{_reuse(validated)}"
        next_step = (
            "Keep the agent you have. What won on val did not hold on fresh cases: use more val examples, and look at "
            "the examples that got worse."
        )
    else:
        sentence = f"Something you wanted protected was hurt. {validated.reason}"
        evidence = f"Shown on {_cases(validated)}.{_reuse(validated)}"
        next_step = (
            "Keep the agent you have. If the guardrail may be hurt that much, give it a wider margin before the next "
            "optimization, never after looking at this one."
        )
    return Statement(
        tone=Tone.BAD,
        label="regressed",
        headline="No. The candidate is worse.",
        sentence=sentence,
        evidence=evidence,
        next_step=next_step,
    )


def _indecisive(validated: ValidatedResult, primary: ObjectiveResult, scale: Scale) -> Statement:
    if primary.verdict is Verdict.IMPROVED:
        return Statement(
            tone=Tone.OPEN,
            label="indecisive",
            headline="Better at the main goal, but not without doubt.",
            sentence=f"{_change(primary, scale)} But: {validated.reason}",
            evidence=f"Measured on {_cases(validated)}; {_chance(primary)}.{_reuse(validated)}",
            next_step="Decide whether the other goal may be hurt: give it a margin that says so, or more test cases "
            "so that its interval becomes narrower.",
        )
    return Statement(
        tone=Tone.OPEN,
        label="indecisive",
        headline="It cannot be said yet.",
        sentence=f"{_change(primary, scale)} That is compatible with no change at all.",
        evidence=f"Measured on {_cases(validated)}; {_p(primary)}.{_detectable(primary, scale)}{_reuse(validated)}",
        next_step="Keep the agent you have and collect more test cases. Do not just measure again: every look at "
        "the same sealed cases makes the next proof harder.",
    )


def _insufficient(validated: ValidatedResult, primary: ObjectiveResult, scale: Scale) -> Statement:
    return Statement(
        tone=Tone.OPEN,
        label="too little data",
        headline="There are too few cases to tell.",
        sentence=f"{_change(primary, scale)} On so few differences no result could count as evidence.",
        evidence=f"Measured on {_cases(validated)}; {_differing(primary)}.{_detectable(primary, scale)}"
        f"{_reuse(validated)}",
        next_step="Keep the agent you have and add examples before you optimize again: a hundred or more in the "
        "test split for gains of about 15 in 100.",
    )


def _no_headroom(validated: ValidatedResult, primary: ObjectiveResult, scale: Scale) -> Statement:
    return Statement(
        tone=Tone.OPEN,
        label="no headroom",
        headline="There is nothing left to improve here.",
        sentence=f"{validated.reason} {_standing(primary, scale)}",
        evidence=f"Measured on {_cases(validated)}; no search was paid for.{_reuse(validated)}",
        next_step="Keep the agent you have. If it fails in practice, collect examples of those failures or measure "
        "something stricter.",
    )


def _not_validated(result: OptimizationResult) -> Statement:
    why = {
        "cancelled": "It was cancelled",
        "finished": "It ended",
    }.get(result.ended_because, f"It reached its cap {result.ended_because}")
    found = (
        "The best candidate so far was kept."
        if result.optimized != result.baseline
        else "Nothing better than the agent you have had been found."
    )
    return Statement(
        tone=Tone.OPEN,
        label="not validated",
        headline="Nothing is claimed: it was not validated.",
        sentence=f"{why} before all sealed test cases were measured. {found} Scores on val are optimistic, because "
        "candidates were chosen by them.",
        evidence="Nothing is claimed from the sealed test cases: not all of them were measured.",
        next_step="Start it again with a higher cap, or let it run to its end: what was asked before is in the "
        "ledger and is not paid again.",
    )


def _without_result(optimization: Optimization) -> Statement:
    tone, sentence, next_step = Tone.OPEN, "", ""
    match optimization.status:
        case OptimizationStatus.QUEUED:
            headline, sentence = "It has not begun.", "It is accepted and waits for its turn."
            next_step = f"Run it: dspy-opt runs resume {optimization.request.id}"
        case OptimizationStatus.RUNNING:
            headline = "It is still running."
            sentence = "Nothing is claimed before the sealed test cases were measured, at the very end."
            next_step = f"Watch it: dspy-opt runs watch {optimization.request.id}"
        case OptimizationStatus.PAUSED:
            headline, sentence = "It is paused.", optimization.error or "A person asked for it."
            next_step = f"Go on: dspy-opt runs resume {optimization.request.id}. Nothing finished is paid again."
        case OptimizationStatus.FAILED:
            tone, headline = Tone.BAD, "It failed before there was a result."
            sentence = optimization.error or "The reason is not known."
            next_step = (
                f"Mend that, then: dspy-opt runs resume {optimization.request.id}. Nothing finished is paid again."
            )
        case OptimizationStatus.CANCELLED | OptimizationStatus.COMPLETED:
            headline, sentence = "It ended without a result.", "It was cancelled before there was anything to keep."
            next_step = "Start a new one: what was asked before is in the ledger and is not paid again."
        case _:
            assert_never(optimization.status)
    return Statement(
        tone=tone,
        label=optimization.status.value,
        headline=headline,
        sentence=sentence,
        evidence="Nothing is claimed from the sealed test cases: not all of them were measured.",
        next_step=next_step,
    )


def _change(primary: ObjectiveResult, scale: Scale) -> str:
    """Say what changed, by how much, between which bounds."""
    difference = primary.difference
    before, after = scale.level(primary.baseline.value), scale.level(primary.optimized.value)
    if not scale.right_or_wrong:
        verb = "stays at" if difference.value == 0 else "rises to" if difference.value > 0 else "falls to"
        better = scale.objective.oriented(difference.value)
        judged = "" if difference.value == 0 else f" ({'better' if better > 0 else 'worse'})"
        return f"{primary.metric} {verb} {after} from {before}{judged}, a change of {_signed_range(difference)}."
    if difference.value == 0:
        return f"Out of 100 cases, as many are answered right as before{_between(difference)}: {after}."
    more = "more" if difference.value > 0 else "fewer"
    return (
        f"Out of 100 cases, about {per_hundred(difference.value)} {more} are answered right"
        f"{_between(difference)}: {after} instead of {before}."
    )


def _between(difference: Estimate) -> str:
    low, high = difference.low, difference.high
    if low is None or high is None:
        return ""
    sure = f", {percent(difference.level)} sure"
    if low >= 0:
        return f" (between {per_hundred(low)} and {per_hundred(high)}{sure})"
    if high <= 0:
        return f" (between {per_hundred(high)} and {per_hundred(low)}{sure})"
    return f" (between {per_hundred(low)} fewer and {per_hundred(high)} more{sure})"


def _signed_range(difference: Estimate) -> str:
    text = number(difference.value).replace("-", "−")
    if difference.low is None or difference.high is None:
        return text
    low, high = (number(bound).replace("-", "−") for bound in (difference.low, difference.high))
    return f"{text} (between {low} and {high}, {percent(difference.level)} sure)"


def _standing(primary: ObjectiveResult, scale: Scale) -> str:
    level = scale.level(primary.baseline.value)
    if scale.right_or_wrong:
        return f"It answers {level} of the sealed cases right{_bounds(primary.baseline)}."
    return f"Its {primary.metric} is {level} on the sealed cases{_bounds(primary.baseline, scale)}."


def _bounds(mean: Estimate, scale: Scale | None = None) -> str:
    if mean.low is None or mean.high is None:
        return ""
    show = percent if scale is None else scale.level
    return f" (between {show(mean.low)} and {show(mean.high)})"


def _cases(validated: ValidatedResult) -> str:
    return f"{count(validated.n_examples, 'case')} nobody optimized on"


def _chance(primary: ObjectiveResult) -> str:
    """Say what the p-value means."""
    if primary.p_value is None or primary.p_value >= 0.5:
        return _p(primary)
    odds = 10_000 if primary.p_value < 1e-4 else round(1 / primary.p_value)
    rarely = "less than once" if primary.p_value < 1e-4 else "about once"
    return f"{_p(primary)}: if both were equally good, chance alone would look like this {rarely} in {odds:,} times"


def _p(primary: ObjectiveResult) -> str:
    return p_text(primary.p_value) if primary.p_value is not None else "nothing was tested"


def _differing(primary: ObjectiveResult) -> str:
    return "" if primary.discordant is None else f"the two differ on {primary.discordant:,} of them"


def _detectable(primary: ObjectiveResult, scale: Scale) -> str:
    if primary.mde is None:
        return " So few cases cannot show any difference."
    return f" So many cases find a difference of {scale.gain(primary.mde)} four times out of five; smaller ones rarely."


def _reuse(validated: ValidatedResult) -> str:
    if validated.test_split_use <= 1:
        return ""
    return (
        f" These sealed cases were opened for the {validated.test_split_use}. time, so the bar is higher: "
        f"p below {number(validated.alpha)}."
    )
