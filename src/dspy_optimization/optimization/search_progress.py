"""How far the searches of one optimization are."""

from collections.abc import Callable, Mapping

from dspy_optimization.algorithms.problem import Shape
from dspy_optimization.optimization.search import CountedCalls
from dspy_optimization.optimization.workplace import Portfolio

SEARCH_BEGINS, SEARCH_ENDS = 0.1, 0.8
"""How far an optimization is, 0 to 1."""
_STEP = 0.02
"""Smaller advances are not told: each is a transaction."""


class SearchProgress:
    """Tells how far the searches are, by what they asked of what they may ask; never less than was said."""

    def __init__(self, expected_calls: float, advance: Callable[[float], None]) -> None:
        """Prepare.

        Args:
            expected_calls: distinct calls that all searches together take at most.
            advance: told how far the optimization is, 0 to 1.
        """
        self._expected = expected_calls
        self._advance = advance
        self._asked: dict[str, int] = {}
        self._told = SEARCH_BEGINS

    def look(self, scopes: Mapping[str, CountedCalls]) -> None:
        """Tell of it when it is worth a word; `scopes` is algorithm → its calls, of those that have begun."""
        if self._expected <= 0.0:
            return
        for label, scope in list(scopes.items()):
            self._asked[label] = max(self._asked.get(label, 0), scope.asked_calls)
        share = min(sum(self._asked.values()) / self._expected, 1.0)
        progress = SEARCH_BEGINS + share * (SEARCH_ENDS - SEARCH_BEGINS)
        if progress >= self._told + _STEP:
            self._told = progress
            self._advance(progress)


def forecast_calls(portfolio: Portfolio, shape: Shape, calls_each: float) -> float:
    """Return how many distinct calls the searches take at most, all together, by their own forecasts.

    Args:
        portfolio: whose algorithms are asked.
        shape: of the problem.
        calls_each: calls of one run of the agent on one example.
    """
    forecasts = [
        portfolio.algorithms[choice.name].forecast(portfolio.options[choice.name], shape)
        for choice in portfolio.choices
    ]
    return sum(one.runs * calls_each + one.proposals for one in forecasts)
