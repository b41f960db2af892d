"""What a tenant's past optimizations say of algorithms on targets like this one: an estimate, and what it lets us say.

    similarity    of two situations, 0 to 1: a product over kinds (equal, or a factor) and amounts (a bell over the
                  logarithm of their ratio). Below 0.3 a past optimization is not like this one. Black boxes, and
                  reflection models that can write instructions or can not, are not compared with others at all.
    equal calls   gains are compared at the calls this request has for searching, or at a half or a quarter of them
                  when too few searches got that far. A search is read at so many calls where its trials say what it
                  had by then; otherwise it counts the less the further its own number of calls is from that.
    val, sealed   a gain on val is optimistic. Where the sealed split was measured, its gain takes the place of the
                  one on val. Elsewhere the gain on val counts by the share of it that held on sealed splits: of this
                  algorithm, drawn toward the share of all, drawn toward a half while nothing is known.
    gain          the weighted mean of those, drawn toward the algorithm's mean over all targets (as if two more had
                  come out so), which is drawn toward what the rules' own algorithms gained (as if two more had).
    again         the same agent on the same data again is no further evidence of other targets: all of it counts once.
    uncertainty   Student's t; the variance of an algorithm is drawn toward that of all, and that toward a standard
                  deviation of 0.1, so that three equal gains are not taken for certainty.

An algorithm is called better than another where the interval of the difference leaves out 0, at 95 % over all pairs
together (Bonferroni) and over all times anybody looks: who is called worse runs less from then on, so an error would
stay. That is a normal mixture boundary (Howard et al. 2021) with Student's t for the normal, our approximation; what is
shown as ± is the plain 95 % interval. Past optimizations were not assigned by chance: people and `auto` itself chose
who ran where, so this says what was seen, not what caused it. No constant here was fitted to data.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from scipy import special

from dspy_optimization.agents.config import AgentKind
from dspy_optimization.optimization.lesson import Gained, Lesson
from dspy_optimization.optimization.situation import Situation

NEEDED = 8
"""Optimizations like this one, below which nothing is concluded."""
NEEDED_EACH = 3
"""Of an algorithm, below which it is not compared."""
NEEDED_ALGORITHMS = 2
LEVEL = 0.95

_LIKE = 0.3
_OTHER_KIND = 0.2
_OTHER_METRIC = 0.2
_OTHER_GOALS = 0.2
_TIMES = math.log(4.0)
"""An amount four times as large has a similarity of exp(-1/2), 0.61."""
_CALLS_TIMES = math.log(1.5)
_CUT_SHORT = 0.5
"""What a search that calls ended counts where this request has no cap on them."""
_SHARES = (1.0, 0.5, 0.25)
_PRIOR = 2.0
"""Optimizations that a prior counts as."""
_PRIOR_SHARE = 0.5
"""Of a gain on val that holds on a sealed split, while nothing is known."""
_PRIOR_VARIANCE = 0.1**2
_PRIOR_FREEDOM = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedGain:
    """What an algorithm is expected to gain here, in utility."""

    algorithm: str
    gain: float
    margin: float
    """Half of the 95 % interval."""
    optimizations: int
    """Like this one, in which it ran; the same target on the same data again counts once, here and everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLittle:
    """Not enough to conclude anything."""

    comparable: int
    """Optimizations like this one."""
    optimizations: Mapping[str, int]
    """Algorithm → in how many of them it ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the past says."""

    comparable: int
    calls: int | None
    """Calls for searching at which gains are compared; None: those the searches took."""
    gains: tuple[ExpectedGain, ...]
    """Of those with enough data, the greatest first."""
    worse: frozenset[str]
    """Those shown to gain less than the first."""
    optimizations: Mapping[str, int]
    """Algorithm → in how many of the comparable it ran, also of those with too little data."""


class _Known(NamedTuple):
    similarity: float
    target: str
    key: str
    gained: tuple[Gained, ...]


class _Seen(NamedTuple):
    gain: float
    reach: float
    """What it counts for its number of calls."""
    weight: float
    """The same, times the similarity of the situations."""


class _Mean(NamedTuple):
    value: float
    variance: float
    freedom: float
    weight: float
    """Optimizations like this one that stand behind it, those less alike for less than one."""


def judge(
    situation: Situation, lessons: Iterable[Lesson], *, usable: frozenset[str], preferred: Sequence[str]
) -> Judgement | TooLittle:
    """Return what past optimizations say; their order decides nothing.

    Args:
        situation: to choose for.
        lessons: of one tenant.
        usable: algorithms that can run here; what others did is passed over.
        preferred: what the rules would take.
    """
    known = sorted(
        (
            _Known(similarity(situation, one.situation), one.target, str(one.optimization_id), _usable(one, usable))
            for one in lessons
        ),
        key=lambda one: one.key,
    )
    known = [one for one in known if one.similarity > 0.0]
    shares = _shares_held(gained for one in known for gained in one.gained)
    horizon = situation.search_calls
    levels = [None] if horizon is None else [max(round(horizon * share), 1) for share in _SHARES]
    few = TooLittle(comparable=0, optimizations={})
    for calls in levels:
        seen = _seen(known, shares, calls)
        like = {name: [one for one in some if _counts(one.weight)] for name, some in seen.items()}
        counts = {name: len(some) for name, some in sorted(like.items()) if some}
        comparable = len(
            {one.target for one in known for each in one.gained if _counts(one.similarity * _at(each, calls)[1])}
        )
        enough = [name for name, count in counts.items() if count >= NEEDED_EACH]
        if comparable >= NEEDED and len(enough) >= NEEDED_ALGORITHMS:
            return _judged(calls, comparable, counts, {name: like[name] for name in enough}, seen, preferred)
        if comparable > few.comparable:
            few = TooLittle(comparable=comparable, optimizations=counts)
    return few


def similarity(one: Situation, other: Situation) -> float:
    """Return how much one says of the other, 0 to 1, the same both ways; calls do not count here."""
    if not _compares(one, other):
        return 0.0
    kinds = (
        (one.kind is other.kind, _OTHER_KIND),
        (one.metric == other.metric, _OTHER_METRIC),
        ((one.goals > 1) == (other.goals > 1), _OTHER_GOALS),
    )
    amounts = (
        (one.n_train, other.n_train),
        (one.n_val, other.n_val),
        (one.optimizable_components, other.optimizable_components),
        (one.input_length, other.input_length),
    )
    apart = math.fsum((math.log((1.0 + mine) / (1.0 + theirs)) / _TIMES) ** 2 for mine, theirs in amounts)
    return math.exp(-0.5 * apart) * math.prod(1.0 if same else factor for same, factor in kinds)


def _compares(one: Situation, other: Situation) -> bool:
    black_boxes = (one.kind is AgentKind.HTTP, other.kind is AgentKind.HTTP)
    return black_boxes[0] == black_boxes[1] and one.can_propose == other.can_propose


def _counts(weight: float) -> bool:
    return weight >= _LIKE


def _usable(lesson: Lesson, usable: frozenset[str]) -> tuple[Gained, ...]:
    return tuple(one for one in lesson.gained if one.algorithm in usable)


def _seen(known: Sequence[_Known], shares: Mapping[str, float], calls: int | None) -> Mapping[str, Sequence[_Seen]]:
    """Return algorithm → what it showed, once a target."""
    found: dict[str, dict[str, list[_Seen]]] = {}
    for one in known:
        for gained in one.gained:
            gain, reach = _at(gained, calls)
            if gained.sealed is None:
                gain *= shares[gained.algorithm]
            else:
                gain = gained.sealed if gain == gained.gain else gained.sealed * gain / gained.gain
            seen = _Seen(gain, reach, one.similarity * reach)
            found.setdefault(gained.algorithm, {}).setdefault(one.target, []).append(seen)
    return {name: [_together(some) for some in by_target.values()] for name, by_target in found.items()}


def _together(some: Sequence[_Seen]) -> _Seen:
    """Return what was done again as if it had been done once: the mean, as much as the one that counts most."""
    total = math.fsum(one.weight for one in some)
    if len(some) == 1 or total <= 0.0:
        return some[0]
    return _Seen(
        gain=math.fsum(one.weight * one.gain for one in some) / total,
        reach=max(one.reach for one in some),
        weight=max(one.weight for one in some),
    )


def _at(gained: Gained, calls: int | None) -> tuple[float, float]:
    """Return the gain on val at so many calls, and what it counts for that number of calls, 0 to 1."""
    if gained.is_finished and (calls is None or gained.calls <= calls):
        return gained.gain, 1.0
    if calls is None:
        return gained.gain, _CUT_SHORT
    if gained.calls >= calls:
        reached = [point.gain for point in gained.points if point.calls <= calls]
        if reached:
            return reached[-1], 1.0
    return gained.gain, math.exp(-0.5 * (math.log(gained.calls / calls) / _CALLS_TIMES) ** 2)


def _shares_held(all_gained: Iterable[Gained]) -> Mapping[str, float]:
    """Return algorithm → share of a gain on val that holds on a sealed split, 0 to 1: least squares through 0."""
    both: dict[str, list[tuple[float, float]]] = {}
    for one in all_gained:
        pairs = both.setdefault(one.algorithm, [])
        if one.sealed is not None and one.gain > 0.0:
            pairs.append((one.gain, one.sealed))
    pairs = [pair for some in both.values() for pair in some]
    typical = math.fsum(val * val for val, _ in pairs) / len(pairs) if pairs else 1.0

    def held(some: Sequence[tuple[float, float]], prior: float) -> float:
        products, squares = math.fsum(val * sealed for val, sealed in some), math.fsum(val * val for val, _ in some)
        weight = _PRIOR * typical
        return min(max((products + weight * prior) / (squares + weight), 0.0), 1.0)

    overall = held(pairs, _PRIOR_SHARE)
    return {name: held(some, overall) for name, some in both.items()}


def _judged(
    calls: int | None,
    comparable: int,
    counts: Mapping[str, int],
    like: Mapping[str, Sequence[_Seen]],
    seen: Mapping[str, Sequence[_Seen]],
    preferred: Sequence[str],
) -> Judgement:
    means = _means(like, seen, preferred)
    order = sorted(means, key=lambda name: (-means[name].value, name))
    gains = tuple(
        ExpectedGain(
            algorithm=name,
            gain=means[name].value,
            margin=_quantile(means[name].freedom, 1.0 - LEVEL) * math.sqrt(means[name].variance),
            optimizations=counts[name],
        )
        for name in order
    )
    alpha = (1.0 - LEVEL) / len(list(combinations(order, 2)))
    best = means[order[0]]
    worse = frozenset(name for name in order[1:] if _is_worse(means[name], best, alpha))
    return Judgement(comparable=comparable, calls=calls, gains=gains, worse=worse, optimizations=counts)


def _means(
    like: Mapping[str, Sequence[_Seen]], seen: Mapping[str, Sequence[_Seen]], preferred: Sequence[str]
) -> Mapping[str, _Mean]:
    """Return algorithm → what it gains on targets like this one."""
    anywhere = {name: [one.gain for one in some if _counts(one.reach)] for name, some in seen.items()}
    rules = [gain for name in sorted(anywhere) if name in preferred for gain in anywhere[name]]
    rules = rules or [gain for name in sorted(anywhere) for gain in anywhere[name]]
    default = math.fsum(rules) / (len(rules) + _PRIOR)
    spreads = {name: _spread(some) for name, some in like.items()}
    freedom = math.fsum(one[1] for one in spreads.values())
    squares = math.fsum(one[0] for one in spreads.values())
    typical = (squares + _PRIOR_FREEDOM * _PRIOR_VARIANCE) / (freedom + _PRIOR_FREEDOM)
    found: dict[str, _Mean] = {}
    for name, some in like.items():
        own_squares, own_freedom = spreads[name]
        variance = (own_squares + _PRIOR_FREEDOM * typical) / (own_freedom + _PRIOR_FREEDOM)
        everywhere = (math.fsum(anywhere[name]) + _PRIOR * default) / (len(anywhere[name]) + _PRIOR)
        weight = math.fsum(one.weight for one in some)
        part = _PRIOR / (weight + _PRIOR)
        here = math.fsum(one.weight * one.gain for one in some) / weight
        found[name] = _Mean(
            value=(1.0 - part) * here + part * everywhere,
            variance=variance / (weight + _PRIOR) + part**2 * variance / (len(anywhere[name]) + _PRIOR),
            freedom=own_freedom + min(_PRIOR_FREEDOM, freedom - own_freedom),
            weight=weight,
        )
    return found


def _spread(some: Sequence[_Seen]) -> tuple[float, float]:
    """Return the weighted sum of squares around the mean, and its degrees of freedom."""
    weight = math.fsum(one.weight for one in some)
    mean = math.fsum(one.weight * one.gain for one in some) / weight
    squares = math.fsum(one.weight * (one.gain - mean) ** 2 for one in some)
    return squares, weight - math.fsum(one.weight**2 for one in some) / weight


def _is_worse(one: _Mean, best: _Mean, alpha: float) -> bool:
    variance = one.variance + best.variance
    # Welch and Satterthwaite.
    freedom = variance**2 / (one.variance**2 / max(one.freedom, 1.0) + best.variance**2 / max(best.freedom, 1.0))
    return best.value - one.value > _quantile(freedom, _at_any_time(one.weight + best.weight, alpha)) * math.sqrt(
        variance
    )


def _at_any_time(weight: float, alpha: float) -> float:
    """Return the level of one look at so many optimizations by which all looks together have the level `alpha`."""
    rest = NEEDED / weight
    squared = (1.0 + rest) * (2.0 * math.log(1.0 / alpha) + math.log1p(1.0 / rest))
    return float(special.erfc(math.sqrt(squared / 2.0)))


def _quantile(freedom: float, alpha: float) -> float:
    return float(special.stdtrit(max(freedom, 1.0), 1.0 - alpha / 2.0))
