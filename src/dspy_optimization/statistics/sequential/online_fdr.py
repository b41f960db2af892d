"""Many experiments of one tenant: a bound on the share of false wins among the wins, as they come."""

from __future__ import annotations

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.probability import checked_probability


def e_lond_level(*, experiment: int, wins_before: int, alpha: float = 0.05) -> float:
    """Return the level of an experiment, fixed at its start: alpha (wins_before + 1) / (experiment (experiment + 1)).

    Keeps the false discovery rate at alpha whatever the dependence between experiments and whenever each is stopped.
    It is dear: of experiments with a power of .92 alone, .33 are found.

    Args:
        experiment: its number by start within the tenant, from 1 on.
        wins_before: of earlier experiments, those proven before this one started, fewer than `experiment`.
        alpha: the false discovery rate, in (0, 1).
    Source: Xu and Ramdas 2024 with gamma_t = 1 / (t (t + 1)).
    """
    checked_probability("alpha", alpha)
    if experiment < 1 or not 0 <= wins_before < experiment:
        raise InvalidRequestError(
            f"wanted: an experiment from 1 on and fewer earlier wins than that; found: experiment {experiment} after "
            f"{wins_before} wins; possible: 0 to {max(experiment, 1) - 1} wins"
        )
    return alpha * (wins_before + 1) / (experiment * (experiment + 1))


def e_lond_threshold(*, experiment: int, wins_before: int, alpha: float = 0.05) -> float:
    """Return the e-value that counts as a win; arguments as in `e_lond_level`.

    Fixed at the start, so the largest e-value so far may be held against it (not so with e-BH).
    """
    return 1.0 / e_lond_level(experiment=experiment, wins_before=wins_before, alpha=alpha)


def expected_false_wins(*, alpha: float, experiments: int) -> float:
    """Return how many false wins to expect at most when nothing differs: alpha times experiments.

    Args:
        alpha: of each experiment, in (0, 1).
        experiments: tested at that alpha, 0 or more.
    """
    checked_probability("alpha", alpha)
    if experiments < 0:
        raise InvalidRequestError(
            f"wanted: experiments of 0 or more; found: {experiments}; possible: the number the tenant has started"
        )
    return alpha * experiments
