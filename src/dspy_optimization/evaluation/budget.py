"""The budget of one optimization: reserved before a call, settled after it, over all roles and resumes."""

import itertools
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from dspy_optimization.errors import BudgetSpent, BudgetUnknownError, InvalidRequestError
from dspy_optimization.evaluation.ledger import Spend
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import LanguageModel, Role
from dspy_optimization.evaluation.need import Need
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Event, EventType

_PICO = 10**12
_LOOK_UP_SECONDS = 0.1
"""How often somebody who waits looks whether the work has to end."""

WARNING_SHARES = (0.5, 0.8)


class Cap(StrEnum):
    """What is capped; named as in `Limits`."""

    COST = "max_cost_usd"
    CALLS = "max_lm_calls"
    TOKENS = "max_tokens"
    SECONDS = "max_seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetWarning:
    """A share of a cap is used up."""

    cap: Cap
    limit: float
    used: float
    """Of the cap, in its unit; what is in flight does not count."""
    share: float
    """The share that was passed, one of `WARNING_SHARES`."""

    def event(self, optimization_id: UUID, at: datetime) -> Event:
        """Return the fact for users; the same cap, limit and share is one fact over all resumes."""
        return Event(
            type=EventType.BUDGET_WARNING,
            optimization_id=optimization_id,
            at=at,
            data={"cap": self.cap.value, "limit": self.limit, "used": self.used, "share": self.share},
            key=f"budget/{self.cap.value}/{self.limit!r}/{self.share!r}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What is held for one call until it is settled or released."""

    number: int
    need: Need


@dataclass(slots=True)
class _Amounts:
    """Sums. Dollars are whole picodollars, so that ten times 0.1 is 1 and what was held goes back to 0."""

    cost: int = 0
    calls: int = 0
    tokens: int = 0

    def add(self, other: "_Amounts", sign: int = 1) -> None:
        self.cost += sign * other.cost
        self.calls += sign * other.calls
        self.tokens += sign * other.tokens

    def of(self, cap: Cap) -> int:
        return {Cap.COST: self.cost, Cap.CALLS: self.calls, Cap.TOKENS: self.tokens}[cap]


class Budget:
    """Keeps every cap. Thread-safe.

    Dollars, calls and tokens are never exceeded as long as no call takes more than its `Need` said: what is
    spent and what is held together stay within the cap. Of seconds it keeps that no call begins after the cap.

    Call order: `reserve`, then exactly one of `settle` and `release`.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        spent: Spend,
        elapsed_seconds: float,
        seconds: Callable[[], float],
        warn: Callable[[BudgetWarning], None],
    ) -> None:
        """Start from what earlier processes left.

        Args:
            limits: the caps.
            spent: charged so far, lost calls included.
            elapsed_seconds: worked on it so far, over all resumes.
            seconds: a clock that never goes back.
            warn: told once a process when a share of `WARNING_SHARES` of a cap is passed; the event's key makes
                it once an optimization.

        Raises:
            InvalidRequestError: a cap is negative or not a finite number.
        """
        self.limits = limits
        self._caps = _checked(limits)
        self._seconds = seconds
        self._started = seconds() - elapsed_seconds
        self._warn = warn
        self._warned: set[tuple[Cap, float]] = set()
        self._spent = _Amounts(cost=_pico(spent.cost_usd), calls=spent.calls, tokens=spent.tokens)
        self._held = _Amounts()
        self._open: dict[int, _Amounts] = {}
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    @property
    def elapsed_seconds(self) -> float:
        """Time worked on the optimization, over all resumes."""
        return self._seconds() - self._started

    def reserve(self, need: Need, stop: StopSignal) -> Reservation:
        """Hold the worst case of one call; wait while only calls in flight stand in the way.

        Args:
            need: the most the call can take.
            stop: ends the wait.

        Raises:
            BudgetSpent: the call does not fit, whatever the calls in flight will turn out to take.
            StopSearch: the signal's reason.
        """
        amounts = _Amounts(cost=_pico(need.cost_usd), calls=1, tokens=need.tokens)
        while True:
            stop.check()
            self._tell()
            with self._changed:
                if self._fits(amounts):
                    return self._hold(need, amounts)
                self._changed.wait(_LOOK_UP_SECONDS)

    def settle(self, reservation: Reservation, *, cost_usd: float, tokens: int) -> None:
        """Book what the call took instead of what was held; the books are honest even if it is more."""
        with self._changed:
            self._give_back(reservation)
            self._spent.add(_Amounts(cost=_pico(cost_usd), calls=1, tokens=tokens))
            self._changed.notify_all()
        self._tell()

    def release(self, reservation: Reservation) -> None:
        """Give back what was held: the call was never answered and costs nothing."""
        with self._changed:
            self._give_back(reservation)
            self._changed.notify_all()

    def _fits(self, amounts: _Amounts) -> bool:
        """Say whether it fits now; raise when it never will. A cap without calls in flight is one that never will."""
        fits = True
        for cap, limit in self._caps.items():
            if cap is Cap.SECONDS:
                if self.elapsed_seconds >= limit:
                    raise self._reached(cap)
                continue
            wanted = self._spent.of(cap) + amounts.of(cap)
            if wanted > limit:
                raise self._reached(cap)
            fits = fits and wanted + self._held.of(cap) <= limit
        return fits

    def _hold(self, need: Need, amounts: _Amounts) -> Reservation:
        reservation = Reservation(number=next(self._numbers), need=need)
        self._open[reservation.number] = amounts
        self._held.add(amounts)
        return reservation

    def _give_back(self, reservation: Reservation) -> None:
        amounts = self._open.pop(reservation.number, None)
        if amounts is None:
            raise ValueError(
                f"wanted: a reservation that is held; found: number {reservation.number}, settled or released "
                "before; possible: end every reservation once"
            )
        self._held.add(amounts, sign=-1)

    def _reached(self, cap: Cap) -> BudgetSpent:
        limit = getattr(self.limits, cap.value)
        return BudgetSpent(cap.value, limit)

    def _tell(self) -> None:
        with self._changed:
            due = list(self._due())
            self._warned.update((warning.cap, warning.share) for warning in due)
        for warning in due:
            self._warn(warning)

    def _due(self) -> list[BudgetWarning]:
        due = []
        for cap, limit in self._caps.items():
            used = self.elapsed_seconds if cap is Cap.SECONDS else self._spent.of(cap)
            unit = _PICO if cap is Cap.COST else 1
            due += [
                BudgetWarning(cap=cap, limit=limit / unit, used=used / unit, share=share)
                for share in WARNING_SHARES
                if limit > 0 and used >= share * limit and (cap, share) not in self._warned
            ]
        return due


def require_prices(limits: Limits, models: Mapping[Role, LanguageModel]) -> None:
    """Refuse a dollar cap that nobody could keep.

    Raises:
        BudgetUnknownError: dollars are capped and the price of a model is not known.
    """
    if limits.max_cost_usd is None:
        return
    unknown = [f"{role.value}: {model.identity}" for role, model in sorted(models.items()) if model.price is None]
    if unknown:
        raise BudgetUnknownError(
            f"wanted: a price for every model, because {Cap.COST.value} = {limits.max_cost_usd:g} is set; "
            f"found: no known price for {'; '.join(unknown)}; possible: state the price per million tokens of "
            f"these models in the settings, or cap {Cap.CALLS.value} or {Cap.TOKENS.value} instead"
        )


def _checked(limits: Limits) -> dict[Cap, int | float]:
    caps: dict[Cap, int | float] = {}
    for cap in Cap:
        limit: float | None = getattr(limits, cap.value)
        if limit is None:
            continue
        if not (math.isfinite(limit) and limit >= 0):
            raise InvalidRequestError(
                f"wanted: {cap.value} as a number from 0 up; found: {limit!r}; possible: leave it out for no cap"
            )
        caps[cap] = _pico(limit) if cap is Cap.COST else limit
    return caps


def _pico(dollars: float) -> int:
    return round(dollars * _PICO)
