"""What a deployment brought, measured on the hold-back."""

from dataclasses import dataclass

from dspy_optimization.events import Json
from dspy_optimization.experiments.evidence import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class RealisedGain:
    """New version minus the one before, on units that no earlier decision has seen: no winner's curse."""

    difference: float | None
    """Of the means; None while only one version has outcomes."""
    interval: tuple[float, float] | None
    """Holds at all looks together with a chance of 1 - alpha; None when no one difference fits the whole time."""
    alpha: float
    n_before: int
    """Units of the hold-back with an outcome."""
    n_after: int
    """Units of the new version with an outcome."""
    mean_before: float | None
    mean_after: float | None

    @property
    def is_proven(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.interval is not None and self.interval[0] >= 0.0

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON, numbers finite."""
        plain: dict[str, Json] = {name: getattr(self, name) for name in self.__slots__ if name != "interval"}
        return {**plain, "interval": None if self.interval is None else list(self.interval)}


def gain_of(evidence: Evidence, alpha: float) -> RealisedGain:
    """Return the gain that a look at the hold-back shows, `alpha` being that of its plan."""
    return RealisedGain(
        difference=None if evidence.mean_baseline is None or evidence.mean_optimized is None else evidence.difference,
        interval=evidence.interval,
        alpha=alpha,
        n_before=evidence.n_baseline,
        n_after=evidence.n_optimized,
        mean_before=evidence.mean_baseline,
        mean_after=evidence.mean_optimized,
    )
