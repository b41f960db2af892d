"""Options of `genetic`: how large, how long, what varies."""

from dataclasses import dataclass

from dspy_optimization.algorithms.genome import Gene
from dspy_optimization.algorithms.option_checks import above, at_least
from dspy_optimization.errors import InvalidRequestError

_RUNS_A_PROPOSAL = 5
"""Where the options do not say how many texts are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneticOptions:
    """How large, how long, what varies."""

    evaluations: int | None = None
    """Runs of the agent on val examples at most, at least 10. Null: as the cap on calls allows, 1,000 without one."""
    population: int = 1024
    """Candidates that live on the model, over all islands; they cost no calls. At least 2 an island."""
    islands: int = 4
    """Populations that believe different draws of the model, at least 1."""
    generations: int = 20
    """Lived on the islands between two rounds of measuring, at least 1."""
    age_limit: int = 6
    """Rounds after which a candidate that was never run makes room, at least 1."""
    initial: int = 20
    """Candidates measured before the first model, the baseline among them. At least 2."""
    newcomers: int = 4
    """Candidates that are measured first in a round, at least 1."""
    block: int = 6
    """Examples that a newcomer meets, at least 2."""
    drafts: int = 2
    """Texts that are written for one newcomer; the one expected to be best is run, all are genes. At least 1."""
    demos: int = 4
    """Demos a component may show, at least 0."""
    demo_pool: int = 16
    """Demos there are to choose from for a component, at least 0."""
    bootstrap_examples: int = 16
    """Train examples the baseline is run on for demos of its own; 0: labelled examples alone."""
    instructions: int = 4
    """Instructions a component that the reflection model writes at the start, at least 0."""
    earlier: bool = True
    """Whether candidates that algorithms before this one found are measured at the start too."""
    proposals: int | None = None
    """Calls of the reflection model at most, those at the start included; 0: no new texts. Null: one for five runs."""
    vary: tuple[Gene, ...] = ("instructions", "demos")
    """What may change: instructions, demos, kind (predict or chain_of_thought), model, tools, temperature."""
    surrogate: bool = True
    """Whether a response model says what to measure next; no: plain means and children of the best."""
    finalists: int = 16
    """Candidates in the finals, at least 2."""
    final_share: float = 0.15
    """Of the budget, for the finals; above 0, below 1."""
    patience: int = 10
    """Rounds without progress after which the finals begin, at least 1."""
    proposal_temperature: float = 1.0
    """Of the model that proposes, above 0."""

    def __post_init__(self) -> None:
        for name, lowest in (
            ("islands", 1),
            ("generations", 1),
            ("age_limit", 1),
            ("initial", 2),
            ("newcomers", 1),
            ("block", 2),
            ("drafts", 1),
            ("demos", 0),
            ("demo_pool", 0),
            ("bootstrap_examples", 0),
            ("instructions", 0),
            ("finalists", 2),
            ("patience", 1),
        ):
            at_least(name, getattr(self, name), lowest)
        if self.evaluations is not None:
            at_least("evaluations", self.evaluations, 10)
        if self.proposals is not None:
            at_least("proposals", self.proposals, 0)
        at_least("population", self.population, 2 * self.islands)
        above("proposal_temperature", self.proposal_temperature, 0)
        if not 0.0 < self.final_share < 1.0:
            raise InvalidRequestError(
                f"final_share: wanted: above 0 and below 1; found: {self.final_share:g}; possible: 0.2"
            )
        if not self.vary:
            raise InvalidRequestError(
                "vary: wanted: at least one gene; found: none; possible: instructions, demos, kind, model, tools, "
                "temperature"
            )

    def texts_at_most(self, evaluations: int) -> int:
        """Return how many texts the reflection model is asked for, beside so many runs on val; 0 or more."""
        if "instructions" not in self.vary:
            return 0
        return self.proposals if self.proposals is not None else evaluations // _RUNS_A_PROPOSAL
