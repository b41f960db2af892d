"""What one tenant's ended optimizations showed of their algorithms.

Worked out from what is kept of them anyway (request, result, columns of trials, the events that tell how turns ended),
once for each, when somebody first wants it; then it is a row of `lesson`. One that went on after an error is worked out
again. Bounded: the newest 500, whatever there is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.documents import VERSION, read
from dspy_optimization.adapters.postgres.tables import lesson as table
from dspy_optimization.agents.candidate import Fingerprint, content_hash
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.algorithms.given import NAME as GIVEN
from dspy_optimization.errors import StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import EventType, Json
from dspy_optimization.optimization.lesson import (
    EndedTurn,
    Gained,
    Lesson,
    Measured,
    PastOptimization,
    Point,
    Sealed,
    lesson_of,
)
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.optimization.situation import Situation
from dspy_optimization.tenancy import TenantId

NEWEST = 500
"""Ended optimizations that are looked at."""
_FORM = 1
"""Of what stands in `lesson`: raised whenever the same rows teach something else; then all are worked out again."""
_BASELINE = "baseline"
_TURNS = 2
"""Turns of an algorithm that are looked for: its first, and the one with what was left."""

# A candidate that a person picked was searched by nobody.
_NEWEST = sa.text(
    """
    WITH newest AS MATERIALIZED (
        SELECT tenant_id, optimization_id, updated_at FROM optimization_request
        WHERE status IN ('completed', 'cancelled', 'failed') AND NOT algorithms @> ARRAY[CAST(:given AS text)]
        ORDER BY created_at DESC, optimization_id DESC LIMIT :newest
    )
    SELECT newest.optimization_id, newest.updated_at, lesson.document, lesson.optimization_id IS NOT NULL AS known
    FROM newest LEFT JOIN lesson ON lesson.tenant_id = newest.tenant_id
        AND lesson.optimization_id = newest.optimization_id
        AND lesson.learned_from = newest.updated_at AND lesson.form = :form
    """
)

_ENDED = sa.text(
    """
    SELECT request.optimization_id, request.status, request.target_id, request.dataset_version,
        request.document -> 'noun' -> 'situation' AS situation,
        request.document -> 'noun' -> 'algorithms' AS algorithms, result.algorithm_used,
        result.optimization_details ->> 'ended_because' AS ended_because,
        result.optimization_details ->> 'verdict' AS verdict,
        CAST(result.optimized_performance #>> '{quality_score,value}' AS double precision)
            - CAST(result.baseline_performance #>> '{quality_score,value}' AS double precision) AS gain
    FROM optimization_request AS request LEFT JOIN optimization_result AS result USING (tenant_id, optimization_id)
    WHERE request.optimization_id = ANY(CAST(:ids AS uuid[]))
        AND json_typeof(request.document -> 'noun' -> 'situation') = 'object'
    """
)

_MEASURED = sa.text(
    """
    SELECT trial.optimization_id, trial.algorithm, max(trial.paid_calls) AS last_paid_calls,
        array_agg(trial.score ORDER BY trial.trial_id) FILTER (WHERE trial.n_results >= ended.n_val) AS scores,
        array_agg(trial.paid_calls ORDER BY trial.trial_id) FILTER (WHERE trial.n_results >= ended.n_val) AS paid_calls
    FROM unnest(CAST(:ids AS uuid[]), CAST(:n_val AS integer[])) AS ended (optimization_id, n_val)
    JOIN trial ON trial.optimization_id = ended.optimization_id AND trial.split = 'val'
    GROUP BY trial.optimization_id, trial.algorithm
    """
)

_TURNS_ENDED = sa.text(
    """
    SELECT wanted.optimization_id, wanted.algorithm, event.data -> 'data' ->> 'outcome' AS outcome,
        CAST(event.data -> 'data' ->> 'best_score' AS double precision) AS best_score
    FROM unnest(CAST(:ids AS uuid[]), CAST(:algorithms AS text[]), CAST(:keys AS text[]))
        WITH ORDINALITY AS wanted (optimization_id, algorithm, key, number)
    JOIN event ON event.optimization_id = wanted.optimization_id AND event.key = wanted.key
    ORDER BY wanted.number
    """
)


class PostgresExperience:
    """The experience of one tenant. Thread-safe."""

    def __init__(self, database: Database, tenant: TenantId) -> None:
        self._database = database
        self._tenant = tenant

    def lessons(self) -> Sequence[Lesson]:
        """Return what the newest ended optimizations teach; those that teach nothing are absent."""
        with self._database.transaction(self._tenant) as connection:
            asked = {"given": GIVEN, "newest": NEWEST, "form": _FORM}
            newest = connection.execute(_NEWEST, asked).all()
            found = [_read(row.optimization_id, row.document) for row in newest if row.document is not None]
            unknown = {row.optimization_id: row.updated_at for row in newest if not row.known}
            if unknown:
                learned = _learned(connection, list(unknown))
                found.extend(learned.values())
                rows = [
                    {
                        "optimization_id": one,
                        "form": _FORM,
                        "learned_from": moment,
                        "document": _document(learned[one]) if one in learned else None,
                    }
                    # Always in the same order: whoever else works the same ones out does not wait in a ring.
                    for one, moment in sorted(unknown.items(), key=lambda item: str(item[0]))
                ]
                connection.execute(_KEPT, rows)
        return found


def _kept() -> "sa.Insert":
    added = insert(table)
    changed = {name: added.excluded[name] for name in ("form", "learned_from", "document")}
    return added.on_conflict_do_update(index_elements=[table.c.tenant_id, table.c.optimization_id], set_=changed)


_KEPT = _kept()


def _learned(connection: sa.Connection, ids: Sequence[OptimizationId]) -> Mapping[OptimizationId, Lesson]:
    """Return what these teach, from the rows there are of them."""
    ended = connection.execute(_ENDED, {"ids": ids}).all()
    situations = {row.optimization_id: read(Situation, {"version": VERSION, "noun": row.situation}) for row in ended}
    sizes = {"ids": list(situations), "n_val": [one.n_val for one in situations.values()]}
    of_trials: dict[OptimizationId, dict[str, Measured]] = {one: {} for one in situations}
    for row in connection.execute(_MEASURED, sizes):
        of_trials[row.optimization_id][row.algorithm] = Measured(
            last_paid_calls=row.last_paid_calls,
            scores=tuple(row.scores or ()),
            paid_calls=tuple(row.paid_calls or ()),
        )
    of_turns: dict[OptimizationId, dict[str, EndedTurn]] = {one: {} for one in situations}
    for row in connection.execute(_TURNS_ENDED, _keys(ended)):
        turn = EndedTurn(outcome=row.outcome, best_score=row.best_score)
        of_turns[row.optimization_id][row.algorithm] = turn
    learned: dict[OptimizationId, Lesson] = {}
    for row in ended:
        one = OptimizationId(row.optimization_id)
        taught = lesson_of(_past(row, situations[one], of_trials[one], of_turns[one]))
        if taught is not None:
            learned[one] = taught
    return learned


def _past(
    row: "sa.Row[tuple[object, ...]]",
    situation: Situation,
    measured: Mapping[str, Measured],
    turns: Mapping[str, EndedTurn],
) -> PastOptimization:
    sealed = None
    if row.verdict is not None:
        sealed = Sealed(algorithm=row.algorithm_used, gain=row.gain, verdict=row.verdict)
    choices: Sequence[Mapping[str, Json]] = row.algorithms
    return PastOptimization(
        optimization_id=OptimizationId(row.optimization_id),
        target=Fingerprint(content_hash([row.target_id, row.dataset_version])),
        situation=situation,
        algorithms=tuple(str(one["name"]) for one in choices if not one["options"]),
        n_algorithms=len(choices),
        failed=row.status == OptimizationStatus.FAILED,
        ended_because=row.ended_because,
        baseline=measured.get(_BASELINE),
        measured={name: one for name, one in measured.items() if name != _BASELINE},
        turns=turns,
        sealed=sealed,
    )


def _keys(ended: Sequence["sa.Row[tuple[object, ...]]"]) -> dict[str, list[object]]:
    """Return what finds the events that tell how turns ended, of each optimization and algorithm in their order."""
    wanted: list[tuple[object, str, str]] = [
        (row.optimization_id, one["name"], f"{EventType.ALGORITHM_ENDED.value}/{one['name']}/{turn}")
        for row in ended
        for one in row.algorithms
        for turn in range(_TURNS)
    ]
    return {
        "ids": [one[0] for one in wanted],
        "algorithms": [one[1] for one in wanted],
        "keys": [one[2] for one in wanted],
    }


def _document(lesson: Lesson) -> dict[str, Json]:
    situation = lesson.situation
    return {
        "target": lesson.target,
        "situation": {
            name: getattr(situation, name).value if name == "kind" else getattr(situation, name)
            for name in Situation.__dataclass_fields__
        },
        "gained": [
            {
                "algorithm": one.algorithm,
                "points": [[point.calls, point.gain] for point in one.points],
                "gain": one.gain,
                "calls": one.calls,
                "is_finished": one.is_finished,
                "sealed": one.sealed,
            }
            for one in lesson.gained
        ],
    }


def _read(optimization_id: OptimizationId, document: Any) -> Lesson:
    """Return the lesson of a row; by hand, for the way of all documents takes as long as everything else together."""
    try:
        situation = document["situation"]
        return Lesson(
            optimization_id=optimization_id,
            target=document["target"],
            situation=Situation(**{**situation, "kind": AgentKind(situation["kind"])}),
            gained=tuple(
                Gained(**{**one, "points": tuple(Point(*point) for point in one["points"])})
                for one in document["gained"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"wanted: what optimization {optimization_id} teaches, of form {_FORM}; found: another form "
            f"({type(error).__name__}: {error}); possible: the engine that wrote it"
        ) from error
