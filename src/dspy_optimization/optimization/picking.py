"""A person picks another candidate than the one that was chosen: it goes through the same gate, as the next use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Split
from dspy_optimization.algorithms.given import NAME, candidate_to_json
from dspy_optimization.errors import ConflictError, NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.jobs.job import Priority
from dspy_optimization.optimization.intake import Checked, Intake, Proposal
from dspy_optimization.optimization.policy import Picked
from dspy_optimization.optimization.request import AlgorithmChoice, Optimization
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.optimization.steering import FINAL
from dspy_optimization.optimization.store import TrialStore
from dspy_optimization.statistics import reuse_level

_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class PickedCandidate:
    """A candidate that may go to the gate, with the proposal that takes it there."""

    optimization: OptimizationId
    """Where it was picked."""
    candidate: Candidate
    checked: Checked
    test_split_use: int
    """Which use of the test split it will be, as things stand."""
    alpha: float
    """The level that use has."""

    @property
    def sentence(self) -> str:
        """What it costs in certainty, in words."""
        return (
            f"This will be use {self.test_split_use} of the test split, tested at a level of {self.alpha:.3g}: every "
            "further use has a smaller one, so that all of them together are wrong as rarely as one alone."
        )


def pick_candidate(
    intake: Intake, optimization: Optimization, beginning: str, known: Callable[[str], Sequence[Candidate]]
) -> PickedCandidate:
    """Return the candidate with a checked proposal; nothing is kept or spent.

    The proposal is the old request with the algorithm `given` and the policy `picked`: same agent, dataset, objectives
    and metrics. A deadline that was set for the old one is dropped, and so is a priority.

    Args:
        intake: of the tenant.
        optimization: completed or cancelled.
        beginning: of the candidate's fingerprint.
        known: finds candidates of this optimization whose fingerprint begins so.
    Raises:
        NotFoundError: no such candidate, or several; names those on the front.
        ConflictError: it has not ended, or the candidate was at the gate already.
        InvalidRequestError: the test split was used too often, or what else speaks against the request now.
    """
    request, stores = optimization.request, intake.stores
    result = stores.results.result(request.id)
    if optimization.status not in FINAL or result is None:
        raise ConflictError(
            f"wanted: an optimization that has ended with a result; found: {request.id} is {optimization.status.value}"
            f"{'' if optimization.status not in FINAL else ' without one'}; possible: wait until it ends"
        )
    candidate = _found(result, beginning, known)
    if candidate == result.baseline or (candidate == result.optimized and result.validated is not None):
        which = "the baseline" if candidate == result.baseline else "the chosen one"
        raise ConflictError(
            f"wanted: another candidate than those that were at the gate; found: {candidate.fingerprint[:12]}, "
            f"{which}; possible: {_others(result)}"
        )
    dataset = stores.datasets.get(request.dataset)
    proposal = Proposal(
        agent=stores.agents.get(request.target.version),
        dataset=dataset,
        sealed=True,
        objectives=request.objectives,
        metrics=request.metrics,
        algorithms=(
            AlgorithmChoice(
                name=NAME,
                options={"candidates": [candidate_to_json(candidate, f"picked from optimization {request.id}")]},
            ),
        ),
        constraints=replace(request.constraints, deadline=None, priority=Priority.NORMAL),
        target=request.target.type,
        policy={"type": Picked.type, "candidate": candidate.fingerprint, "optimization": str(request.id)},
    )
    checked = intake.check(proposal)
    use = next_use(intake, dataset)
    return PickedCandidate(
        optimization=request.id,
        candidate=candidate,
        checked=checked,
        test_split_use=use,
        alpha=reuse_level(intake.alpha, use),
    )


def measured_candidates(trials: TrialStore, optimization_id: OptimizationId) -> Callable[[str], Sequence[Candidate]]:
    """Return what finds candidates of an optimization by the beginning of their fingerprint; reads every trial."""

    def known(beginning: str) -> Sequence[Candidate]:
        found = {trial.candidate.fingerprint: trial.candidate for trial in trials.trials(optimization_id)}
        return [one for name, one in found.items() if name.startswith(beginning)]

    return known


def next_use(intake: Intake, dataset: Dataset) -> int:
    """Return which use of a dataset's test split the next one is; 1 is the first."""
    return intake.stores.results.test_split_uses([example.id for example in dataset[Split.TEST]]) + 1


def front_names(result: OptimizationResult) -> tuple[Fingerprint, ...]:
    """Return the candidates on the front; none where an older engine computed none."""
    return () if result.front is None else tuple(point.candidate for point in result.front.points)


def _found(result: OptimizationResult, beginning: str, known: Callable[[str], Sequence[Candidate]]) -> Candidate:
    named = {one.fingerprint: one for one in (known(beginning) if beginning else ())}
    named |= {one.fingerprint: one for one in (result.baseline, result.optimized) if beginning}
    matching = [one for name, one in named.items() if name.startswith(beginning)]
    if len(matching) != 1:
        raise NotFoundError(
            f"wanted: a candidate of {result.optimization_id} whose fingerprint begins with {beginning[:80]!r}; found: "
            f"{'several' if matching else 'none'}; possible, on the front: {_others(result)}"
        )
    return matching[0]


def _others(result: OptimizationResult) -> str:
    gone = {result.baseline.fingerprint, result.optimized.fingerprint}
    names = [name for name in front_names(result) if name not in gone]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(name[:12] for name in names[:_SHOWN]) or "no other one is on the front") + more
