"""How a search that evolves candidates went, from what it told after every round."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dspy_optimization.events import EventType, Json, RecordedEvent

_ROUND = "round"
_UNBOUNDED = 2**53
"""A bound as large as that is none: the search's calls are bounded elsewhere."""
_NUMBER = re.compile(r"[-+]?[0-9.]+|nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to make candidates, and what it earned."""

    name: str
    tries: int
    wins: float
    """Each try counts as how likely it is better than the best before it, 0 to 1."""

    @property
    def share(self) -> float:
        """Wins a try; 0 where it was never tried."""
        return self.wins / self.tries if self.tries else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Rounds in a row in which the model was trusted, or doubted for the same reason."""

    first: int
    last: int
    low: float
    """Least trust in these rounds: how well it ranks candidates it has not seen, 0 to 1."""
    high: float
    doubt: str | None
    """Why it was not trusted; None: it was."""

    @property
    def rounds(self) -> str:
        """Which ones, in words."""
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRounds:
    """One algorithm's rounds. Nothing in it is a score: what a model expects stays with the model."""

    algorithm: str
    rounds: int
    population: int
    """Candidates that live on the model, at no cost."""
    candidates: int
    """Run at least on some examples."""
    evaluations: int
    evaluations_at_most: int | None
    """None: no bound of its own."""
    instructions: int
    """Texts there were to combine."""
    unreadable: int
    """Proposals of the reflection model that could not be read."""
    ways: tuple[Way, ...]
    """Tried ones, the most tried first."""
    trusts: tuple[Trust, ...]


def search_rounds(events: Sequence[RecordedEvent]) -> tuple[SearchRounds, ...]:
    """Return the rounds of every algorithm that told of such; what a plug-in tells in another form is left out."""
    told: dict[str, dict[int, _Told]] = {}
    for recorded in events:
        if recorded.event.type is EventType.PROGRESS and recorded.event.data.get("phase") == _ROUND:
            one = _told(recorded.event.data)
            if one is not None:
                told.setdefault(one.algorithm, {})[one.iteration] = one
    return tuple(_rounds([rounds[place] for place in sorted(rounds)]) for rounds in told.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What was told after one round."""

    algorithm: str
    iteration: int
    counts: Mapping[str, int]
    at_most: int | None
    trust: float
    doubt: str | None
    ways: tuple[Way, ...]


_COUNTS = ("population", "candidates", "evaluations", "instructions", "unreadable_proposals")


def _told(data: Mapping[str, Json]) -> _Told | None:
    """Return it; None where it has another form."""
    algorithm, iteration, doubt = data.get("algorithm"), _whole(data.get("iteration")), data.get("surrogate_doubt")
    counts = {name: found for name in _COUNTS if (found := _whole(data.get(name))) is not None}
    trust, operators = _amount(data.get("surrogate_trust")), data.get("operators")
    at_most = _whole(data.get("evaluations_at_most"))
    if (
        not isinstance(algorithm, str)
        or iteration is None
        or trust is None
        or not isinstance(operators, Mapping)
        or len(counts) < len(_COUNTS)
    ):
        return None
    return _Told(
        algorithm=algorithm,
        iteration=iteration,
        counts=counts,
        at_most=None if at_most is None or at_most >= _UNBOUNDED else at_most,
        trust=min(max(trust, 0.0), 1.0),
        doubt=doubt if isinstance(doubt, str) and doubt else None,
        ways=_ways(operators),
    )


def _rounds(told: Sequence[_Told]) -> SearchRounds:
    newest = told[-1]
    return SearchRounds(
        algorithm=newest.algorithm,
        rounds=len(told),
        population=newest.counts["population"],
        candidates=newest.counts["candidates"],
        evaluations=newest.counts["evaluations"],
        evaluations_at_most=newest.at_most,
        instructions=newest.counts["instructions"],
        unreadable=newest.counts["unreadable_proposals"],
        ways=newest.ways,
        trusts=_trusts(told),
    )


def _ways(operators: Mapping[str, Json]) -> tuple[Way, ...]:
    found: list[Way] = []
    for name, one in operators.items():
        tries, wins = (_whole(one.get("tries")), _amount(one.get("wins"))) if isinstance(one, Mapping) else (None, None)
        if tries and wins is not None:
            found.append(Way(name=name, tries=tries, wins=wins))
    return tuple(sorted(found, key=lambda one: (-one.tries, one.name)))


def _trusts(told: Sequence[_Told]) -> tuple[Trust, ...]:
    found: list[Trust] = []
    for one in told:
        now = Trust(first=one.iteration, last=one.iteration, low=one.trust, high=one.trust, doubt=one.doubt)
        if found and _kind(found[-1].doubt) == _kind(one.doubt):
            before = found.pop()
            now = replace(now, first=before.first, low=min(before.low, now.low), high=max(before.high, now.high))
        found.append(now)
    return tuple(found)


def _kind(doubt: str | None) -> str | None:
    """Return a reason without its numbers."""
    return None if doubt is None else _NUMBER.sub("", doubt)


def _whole(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _amount(value: Json) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known and isinstance(value, int | float) else None
