"""From nouns to answers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from dspy_optimization.adapters.postgres.documents import write
from dspy_optimization.adapters.postgres.evidence_store import TrialRow
from dspy_optimization.adapters.postgres.overview_store import Moment, Overview
from dspy_optimization.adapters.report.curves import BASELINE
from dspy_optimization.adapters.report.lineage import Ancestor
from dspy_optimization.adapters.report.row_curves import RowCurves
from dspy_optimization.adapters.report.val_examples import ExampleChange
from dspy_optimization.adapters.report.word_changes import ComponentChange, component_changes
from dspy_optimization.agents.candidate import Candidate, Fingerprint
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.evaluation.gate import Estimate
from dspy_optimization.evaluation.model import Role
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.events import Json
from dspy_optimization.optimization.front import Front, FrontPoint
from dspy_optimization.optimization.request import Optimization, OptimizationRequest, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.web import answers
from dspy_optimization.web.asking_again import body_of
from dspy_optimization.web.handing_in import completion

_ENDED = frozenset({OptimizationStatus.COMPLETED, OptimizationStatus.CANCELLED, OptimizationStatus.FAILED})


def links_of(request: OptimizationRequest) -> dict[str, str]:
    """Return where everything about an optimization is."""
    base = f"/api/v1/optimizations/{request.id}"
    return {
        "self": base,
        "status": f"{base}/status",
        "events": f"{base}/events",
        "websocket": f"/ws/optimizations/{request.id}",
        "report": f"{base}/report",
        "artifact": f"{base}/artifact",
        "page": f"/optimizations/{request.id}",
    }


def summary(seen: Overview) -> answers.Summary:
    """Return the optimization at a glance."""
    optimization = seen.optimization
    request, result = optimization.request, seen.result or {}
    difference = result.get("difference")
    return answers.Summary(
        optimization_id=request.id,
        target=answers.TargetOut(type=request.target.type.value, id=request.target.id, version=request.target.version),
        status=optimization.status.value,
        progress=optimization.progress,
        algorithms=[choice.name for choice in request.algorithms],
        created_at=request.created_at,
        updated_at=optimization.updated_at,
        elapsed_seconds=optimization.elapsed_seconds,
        baseline_score=seen.baseline_score,
        best_score=seen.best_score,
        verdict=_text(result.get("verdict")),
        improvement_percentage=_number(result.get("improvement_percentage")),
        absolute_improvement=_number(difference.get("value")) if isinstance(difference, dict) else None,
        confidence_interval=_interval(difference),
        lm_calls=seen.lm_calls,
        cost_usd=seen.cost_usd,
        error=optimization.error,
    )


def accepted(optimization: Optimization, told: Mapping[str, Json]) -> answers.Accepted:
    """Return what is told of an optimization that was handed in; `told` is the data of the event that says so."""
    seconds = _number(told.get("estimated_seconds"))
    return answers.Accepted(
        optimization_id=optimization.request.id,
        status=optimization.status.value,
        estimated_completion=None if seconds is None else completion(optimization.request.created_at, seconds),
        estimated_cost_usd=_number(told.get("estimated_cost_usd")),
        links=links_of(optimization.request),
    )


def pick_accepted(optimization: Optimization, told: Mapping[str, Json]) -> answers.PickAccepted:
    """Return what is told of a pick that was handed in; `told` is the data of the event that says so."""
    return answers.PickAccepted.model_validate(
        {
            **accepted(optimization, told).model_dump(),
            **{name: told.get(name) for name in ("picked_from", "candidate", "test_split_use", "alpha", "sentence")},
        }
    )


def detail(moment: Moment) -> answers.Detail:
    """Return the optimization with what was asked for."""
    request = moment.overview.optimization.request
    plain = write(request)["noun"]
    wanted = dict(plain) if isinstance(plain, dict) else {}
    return answers.Detail(
        **summary(moment.overview).model_dump(),
        request=wanted,
        body=body_of(wanted),
        schedule=_of_schedule(moment.accepted),
        links=links_of(request),
    )


def _of_schedule(told: Mapping[str, Json]) -> answers.OfSchedule | None:
    schedule, due_at = _text(told.get("schedule")), _text(told.get("due_at"))
    if schedule is None:
        return None
    return answers.OfSchedule(
        id=UUID(schedule),
        name=_text(told.get("schedule_name")) or schedule,
        due_at=None if due_at is None else datetime.fromisoformat(due_at),
    )


def status(moment: Moment, now: datetime) -> answers.StatusOut:
    """Return where the optimization stands."""
    overview, latest, result = moment.overview, moment.latest, moment.result
    optimization, calls = overview.optimization, overview.lm_calls
    eta = _eta(optimization, moment)
    known = None if result is None else result.bill.answered_from_ledger
    costs = {role.value: 0.0 for role in Role} | {one.role.value: one.cost_usd for one in overview.spend}
    return answers.StatusOut(
        optimization_id=optimization.request.id,
        status=optimization.status.value,
        progress=optimization.progress,
        estimated_completion=None if eta is None else completion(now, eta),
        metrics=answers.Metrics(
            current_iteration=_whole(latest.get("iteration")),
            best_score=overview.best_score,
            algorithm=_text(latest.get("algorithm")),
            phase=_text(latest.get("phase")),
            trials=overview.trials,
            lm_calls=calls,
            cache_hit_rate=None if known is None or known + calls == 0 else known / (known + calls),
            cost_usd={**costs, "total": sum(costs.values())},
            tokens=sum(one.tokens for one in overview.spend),
            elapsed_seconds=optimization.elapsed_seconds,
            eta_seconds=eta,
        ),
        results=None if result is None else results(result),
        error=optimization.error,
    )


def _eta(optimization: Optimization, moment: Moment) -> float | None:
    """Return how much longer it takes once it works; None when it does not work on, or nobody can tell.

    By what was estimated for it, and when it takes longer than that, by how far it has come.
    """
    total = _number(moment.accepted.get("estimated_seconds"))
    if optimization.status in _ENDED or optimization.status is OptimizationStatus.PAUSED or total is None:
        return None
    elapsed, progress = optimization.elapsed_seconds, optimization.progress
    if elapsed < total:
        return total - elapsed
    return elapsed * (1.0 - progress) / progress if progress > 0.0 else None


def results(result: OptimizationResult) -> answers.Results:
    """Return what the sealed split allows to be said."""
    validated = result.validated
    primary = validated.objectives[validated.primary] if validated is not None else None
    before = {} if validated is None else dict(validated.baseline_performance)
    after = {} if validated is None else dict(validated.optimized_performance)
    if validated is not None:
        before |= {name: one.baseline for name, one in validated.objectives.items()}
        after |= {name: one.optimized for name, one in validated.objectives.items()}
    interval = None
    if primary is not None and primary.difference.low is not None and primary.difference.high is not None:
        interval = (primary.difference.low, primary.difference.high)
    return answers.Results(
        baseline_performance={name: _measured(one) for name, one in before.items()},
        optimized_performance={name: _measured(one) for name, one in after.items()},
        improvement_percentage=primary.improvement_percentage if primary is not None else None,
        absolute_improvement=primary.difference.value if primary is not None else None,
        statistical_significance=primary.p_value if primary is not None else None,
        confidence_interval=interval,
        mde=primary.mde if primary is not None else None,
        verdict=validated.verdict.value if validated is not None else None,
        reason=validated.reason if validated is not None else None,
        pareto_front=None if result.front is None else [_front_point(one) for one in result.front.points],
        pick=_picked(result),
        algorithm_used=result.algorithm_used,
        optimization_details=answers.ResultDetails(
            iterations=result.iterations,
            trials=result.trials,
            key_improvements=[
                answers.Worth(component=one.component, part=one.part, worth=_measured(one.worth))
                for one in result.key_improvements
            ],
            parameters=dict(result.parameters),
            ended_because=result.ended_because,
            test_split_use=validated.test_split_use if validated is not None else None,
            n_examples=validated.n_examples if validated is not None else None,
        ),
        artifact=answers.ArtifactOut(
            agent_version=result.artifact.agent_version,
            checksum=result.artifact.checksum,
            mlflow_run_id=result.artifact.mlflow_run_id,
        ),
    )


def front(result: OptimizationResult, found: Front) -> answers.FrontOut:
    """Return the front on val with how it came about."""
    return answers.FrontOut(
        goals=list(found.goals),
        points=[_front_point(one) for one in found.points],
        baseline=_front_point(found.baseline),
        chosen=_front_point(found.chosen),
        pick=_picked(result),
        size=found.size,
        candidates=found.candidates,
        n=found.n,
        clusters=found.clusters,
        resamples=found.resamples,
        reference=dict(found.reference),
        course=[
            answers.VolumeStepOut(paid_calls=one.paid_calls, volume=one.volume, candidate=one.candidate)
            for one in found.course
        ],
    )


def means(
    objectives: Objectives,
    n_val: int,
    whole: Sequence[TrialRow],
    shown: Sequence[TrialRow],
    found: Mapping[Fingerprint, Mapping[str, float]],
) -> answers.MeansOut:
    """Return the means of those shown, of all that may be whole."""
    baseline = next((found.get(one.candidate) for one in shown if one.algorithm == BASELINE), None)
    guards = [item for item in objectives.items if item.guardrail]
    return answers.MeansOut(
        goals=[item.metric for item in objectives.items if not item.guardrail],
        n=n_val,
        items=[
            answers.MeansOfCandidate(
                candidate=one.candidate,
                algorithm=one.algorithm,
                is_baseline=one.algorithm == BASELINE,
                guardrails_hold=baseline is None
                or all(item.holds(found[one.candidate][item.metric], baseline[item.metric]) for item in guards),
                paid_calls=one.paid_calls,
                means={item.metric: found[one.candidate][item.metric] for item in objectives.items},
            )
            for one in shown
            if one.candidate in found
        ],
        total=len(whole),
    )


def _front_point(point: FrontPoint) -> answers.FrontPointOut:
    return answers.FrontPointOut(
        candidate=point.candidate,
        algorithm=point.algorithm,
        origin=point.origin,
        means={
            name: answers.ValMeanOut(
                value=one.value, n=one.n, low=one.low, high=one.high, level=one.level, method=one.method
            )
            for name, one in point.means.items()
        },
        guardrails_hold=point.guardrails_hold,
        on_front=point.on_front,
        is_baseline=point.is_baseline,
        is_chosen=point.is_chosen,
        probability_on_front=point.probability_on_front,
        dominated_by={str(name): share for name, share in point.dominated_by.items()},
        alike=list(point.alike),
        equal=list(point.equal),
    )


def _picked(result: OptimizationResult) -> answers.PickOut | None:
    taken = result.pick
    if taken is None:
        return None
    return answers.PickOut(policy=taken.policy, candidate=taken.candidate, reason=taken.reason, eligible=taken.eligible)


def candidate(
    row: TrialRow, sizes: Mapping[Split, int], baseline: Fingerprint | None, chosen: Fingerprint | None
) -> answers.CandidateOut:
    """Return one measured candidate; `sizes` are those of the splits."""
    return answers.CandidateOut(
        candidate=row.candidate,
        algorithm=row.algorithm,
        split=row.split.value,
        score=row.score,
        n_examples=row.n_results,
        complete=row.n_results >= sizes[row.split],
        iteration=row.iteration,
        paid_calls=row.paid_calls,
        recorded_at=row.recorded_at,
        parents=list(row.parents),
        is_baseline=row.candidate == baseline,
        is_chosen=row.candidate == chosen,
    )


def candidate_detail(found: Candidate) -> answers.CandidateDetail:
    """Return a candidate with its texts."""
    return answers.CandidateDetail(
        candidate=found.fingerprint,
        components={
            name: answers.ComponentOut(
                instructions=part.instructions,
                demos=[dict(demo) for demo in part.demos],
                settings=part.settings.to_json(),
            )
            for name, part in found.components.items()
        },
    )


def diff(before: Candidate, after: Candidate) -> answers.Diff:
    """Return what differs, word by word and demo by demo."""
    changes = component_changes(before, after, frozenset())
    return answers.Diff.model_validate(
        {
            "from": before.fingerprint,
            "to": after.fingerprint,
            "components": [_component_diff(change) for change in changes],
        }
    )


def curve(curves: RowCurves, most: int) -> answers.Curve:
    """Return the curve with so many points at most: all steps of the best are kept, the rest is thinned evenly."""
    points = curves.points
    kept: Sequence[object] = points
    if len(points) > most:
        stride = len(points) / most
        kept = [points[int(number * stride)] for number in range(most)]
    chosen = {id(one) for one in kept}
    return answers.Curve(
        points=[
            answers.CurvePoint(
                paid_calls=point.paid_calls,
                score=point.score,
                algorithm=point.algorithm,
                candidate=point.candidate,
                complete=point.complete,
            )
            for point in points
            if id(point) in chosen
        ],
        best=[
            answers.BestStep(paid_calls=step.paid_calls, score=step.score, candidate=step.candidate)
            for step in curves.best
        ],
        baseline_score=None if curves.baseline is None else curves.baseline.score,
        total=len(points),
    )


def example(changed: ExampleChange, metric: str) -> answers.ExampleOut:
    """Return one val example under both candidates."""
    word = "same" if changed.change == 0.0 else "better" if changed.change > 0.0 else "worse"
    return answers.ExampleOut(
        example_id=changed.example.id,
        inputs=dict(changed.example.inputs),
        expected=dict(changed.example.expected),
        baseline=_outcome(changed.baseline, metric),
        optimized=_outcome(changed.optimized, metric),
        change=word,
    )


def lineage(family: Sequence[Ancestor], baseline: str | None) -> answers.Lineage:
    """Return the family of candidates."""
    return answers.Lineage(
        nodes=[
            answers.Node(
                id=one.fingerprint,
                label=one.origin,
                score=one.score,
                algorithm=one.algorithm,
                generation=one.generation,
                is_baseline=one.fingerprint == baseline,
                is_chosen=one.chosen,
            )
            for one in family
        ],
        edges=[
            answers.Edge.model_validate({"from": parent, "to": one.fingerprint})
            for one in family
            for parent in one.parents
        ],
    )


def _component_diff(change: ComponentChange) -> answers.ComponentDiff:
    return answers.ComponentDiff(
        component=change.component,
        frozen=change.frozen,
        instructions_changed=change.instructions_changed,
        words=[answers.PieceOut(edit=piece.edit.value, text=piece.text) for piece in change.words],
        demos_added=[dict(demo) for demo in change.demos_added],
        demos_removed=[dict(demo) for demo in change.demos_removed],
        demos_kept=change.demos_kept,
        demos_reordered=change.demos_reordered,
        settings=[
            answers.SettingDiff.model_validate({"name": one.name, "from": one.before, "to": one.after})
            for one in change.settings
        ],
    )


def _outcome(result: ExampleResult, metric: str) -> answers.Outcome:
    return answers.Outcome(score=result.scores[metric].value, outputs=dict(result.outputs), failure=result.failure)


def _measured(estimate: Estimate) -> answers.Measured:
    return answers.Measured(value=estimate.value, n=estimate.n, low=estimate.low, high=estimate.high)


def _interval(difference: Json) -> tuple[float, float] | None:
    if not isinstance(difference, dict):
        return None
    low, high = _number(difference.get("low")), _number(difference.get("high"))
    return None if low is None or high is None else (low, high)


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
