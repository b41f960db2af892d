"""COPRO: proposes instructions, tries them all, and proposes again from what came of it.

Neighbours' habits that this module answers to (dspy 3.4.1):

- It climbs on the examples it is given and knows no val split: here it climbs on train, and its best candidates are
  submitted, so that val decides.
- It evaluates every earlier candidate again at each depth where there are several components, and asks for output
  prefixes that no adapter shows any more: the ledger answers the repeats.
- One answer among n that cannot be read loses the whole search: proposals are read leniently (`proposal_adapter`).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from dspy import teleprompt

from dspy_optimization.adapters.dspy.search import dspy_search
from dspy_optimization.algorithms.option_checks import above, at_least
from dspy_optimization.algorithms.problem import Forecast, Problem, SearchRun, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class COPROOptions:
    """How wide and how deep."""

    breadth: int = 6
    """Instructions tried for a component at each depth, at least 2."""
    depth: int = 3
    """Rounds of proposing from what came of the last, at least 1."""
    proposal_temperature: float = 1.4
    """Of the model that proposes, above 0."""
    winners: int = 3
    """How many of the best on train are compared on val, at least 1."""

    def __post_init__(self) -> None:
        at_least("breadth", self.breadth, 2)
        at_least("depth", self.depth, 1)
        at_least("winners", self.winners, 1)
        above("proposal_temperature", self.proposal_temperature, 0)


class COPRO:
    """Climbs instructions, component by component."""

    name: ClassVar[str] = "copro"
    description: ClassVar[str] = (
        "proposes instructions from those tried before and their scores, component by component"
    )
    options: ClassVar[type] = COPROOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return how much a search takes at most."""
        chosen = cast("COPROOptions", options)
        tried = chosen.breadth * chosen.depth * shape.n_components**2
        return Forecast(
            runs=tried * shape.n_train + chosen.winners * shape.n_val,
            proposals=chosen.breadth * chosen.depth * shape.n_components,
        )

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Record trials on train and submit the best few."""
        options = cast("COPROOptions", problem.options)
        with dspy_search(problem, run, self.name) as search:
            search.book.begin("instructions")
            optimizer = teleprompt.COPRO(
                prompt_model=search.reflection,
                metric=search.metric,
                breadth=options.breadth,
                depth=options.depth,
                init_temperature=options.proposal_temperature,
            )
            settings = {"num_threads": search.threads, "display_progress": False, "display_table": 0}
            best: Any = optimizer.compile(search.student, trainset=search.trainset, eval_kwargs=settings)
            for winner in best.candidate_programs[: options.winners]:
                search.submit(winner["program"])
