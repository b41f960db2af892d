"""From a request's body to what is wanted, checked, estimated and handed in."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import cast

from dspy_optimization.adapters.models.factory import DEFAULT_CONCURRENCY
from dspy_optimization.adapters.postgres.event_store import telling
from dspy_optimization.adapters.postgres.idempotency_store import PostgresIdempotency
from dspy_optimization.adapters.postgres.overview_store import ACCEPTED_KEY, Past, PostgresOverview
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset, DatasetVersion, SplitShares
from dspy_optimization.agents.dataset_loading import read_source
from dspy_optimization.agents.loading import agent_from_json
from dspy_optimization.agents.reading import RecordFields, fields_of
from dspy_optimization.agents.splitting import build_dataset
from dspy_optimization.agents.untrusted import checked_json, closest
from dspy_optimization.engine import Engine
from dspy_optimization.errors import ConflictError, InvalidRequestError, NoGpuError, NotFoundError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Role
from dspy_optimization.events import Event, EventType, Json
from dspy_optimization.jobs.job import Lane, Priority
from dspy_optimization.optimization.intake import Checked
from dspy_optimization.optimization.proposing import (
    Estimated,
    Wanted,
    algorithm_choices,
    checked,
    estimated,
)
from dspy_optimization.optimization.request import Constraints, Isolation, Optimization, TargetType
from dspy_optimization.optimization.store import Hook
from dspy_optimization.serving import Serving
from dspy_optimization.web.schemas import ConstraintsIn, DatasetIn, OptimizeIn, TargetIn

_SHOWN = 10
_FEWEST_PAST = 5
"""Ended optimizations below which an estimate is told as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that can be carried out, and what it will take."""

    checked: Checked
    estimate: Estimated
    estimated_seconds: float
    """What it will probably take, by what earlier ones took of their estimates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What hands a request in where no person does."""

    told: Mapping[str, Json]
    """Stands in the event of its acceptance."""
    also: Callable[[OptimizationId], Hook] | None = None
    """Returns what else happens in the transaction that keeps the request."""


def prepare(serving: Serving, engine: Engine, body: OptimizeIn) -> Prepared:
    """Check everything that can be checked for nothing. Raises `InvalidRequestError` or `NoGpuError`."""
    constraints = _constraints(serving, body.constraints)
    check_lane(serving, constraints.lane)
    agent = agent_of(engine, body.target)
    proposal = checked(
        Wanted(
            agent=agent,
            dataset=dataset_of(engine, body.dataset, agent),
            sealed=body.dataset.id is not None,
            objectives=[one.model_dump(exclude_none=True) for one in body.objectives],
            metrics=[_specification(one) for one in body.metrics],
            algorithms=algorithm_choices(cast("Sequence[Json]", body.algorithms), "algorithms"),
            constraints=constraints,
            target=TargetType(body.target.type),
            policy=body.policy,
        ),
        engine.intake,
    )
    return with_estimate(serving, engine, proposal)


def with_estimate(serving: Serving, engine: Engine, proposal: Checked) -> Prepared:
    """Return a checked proposal with what it will take."""
    estimate = estimated(proposal, engine.intake, engine.models, seconds_a_call=None)
    past = PostgresOverview(serving.foundation.database, engine.steering.tenant).past()
    return Prepared(
        checked=proposal, estimate=estimate, estimated_seconds=estimate.cost.minutes * 60.0 * calibration(past)
    )


def hand_in(
    serving: Serving, engine: Engine, body: OptimizeIn, key: str | None, cause: Cause | None = None
) -> Optimization:
    """Keep and queue the request, all or nothing; the same key again returns the optimization it made.

    Args:
        serving: what this process serves with.
        engine: of the tenant that hands in.
        body: what is wanted.
        key: tells this request from others, however often it is sent.
        cause: what hands it in; None: a person does.
    Raises:
        ConflictError: the key came with another body before.
        QueueFullError: as many wait as may wait.
        InvalidRequestError: the request cannot be carried out.
    """

    def make() -> Making:
        return Making(prepared=prepare(serving, engine, body), cause=cause)

    return keep_once(serving, engine, make, key, "" if key is None else digest_of(body))


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What is to be kept, and what hands it in where no person does."""

    prepared: Prepared
    cause: Cause | None


def keep_once(
    serving: Serving, engine: Engine, make: Callable[[], Making], key: str | None, digest: str
) -> Optimization:
    """Keep and queue what is made; with a key that is known return what it made before, and make nothing.

    Args:
        serving: what this process serves with.
        engine: of the tenant that hands in.
        make: checks the request; called when the key is new and the queue has room.
        key: tells this request from others; None: it is a new one.
        digest: what tells the body from others that come with the same key.
    """
    requests = PostgresIdempotency(serving.foundation.database, engine.steering.tenant)
    known = None if key is None else requests.known(key, digest)
    if known is not None:
        return engine.stores.optimizations.get(known)
    serving.queue.check_room()
    making = make()
    prepared, cause = making.prepared, making.cause
    told = {} if cause is None else cause.told
    also = [lambda optimization_id: telling(_accepted(optimization_id, prepared, engine.steering.now(), told))]
    if key is not None:
        also.append(lambda optimization_id: requests.remembering(key, digest, optimization_id))
    if cause is not None and cause.also is not None:
        also.append(cause.also)
    try:
        return engine.steering.submit(engine.intake, prepared.checked, *also)
    except ConflictError:
        known = None if key is None else requests.known(key, digest)
        if known is None:
            raise
        return engine.stores.optimizations.get(known)


def _accepted(optimization_id: OptimizationId, prepared: Prepared, at: datetime, told: Mapping[str, Json]) -> Event:
    cost = prepared.estimate.cost
    return Event(
        type=EventType.OPTIMIZATION_ACCEPTED,
        optimization_id=optimization_id,
        at=at,
        data={
            "raw_seconds": cost.minutes * 60.0,
            "estimated_seconds": prepared.estimated_seconds,
            "estimated_cost_usd": cost.cost_usd,
            "calls": cost.calls,
            "reason": prepared.checked.reason,
            **told,
        },
        key=ACCEPTED_KEY,
    )


def calibration(past: Sequence[Past]) -> float:
    """Return what earlier optimizations took of their upper estimate, the median; 1 while too few are known."""
    ratios = [one.elapsed_seconds / one.raw_seconds for one in past if one.raw_seconds > 0.0]
    return median(ratios) if len(ratios) >= _FEWEST_PAST else 1.0


def agent_of(engine: Engine, target: TargetIn) -> AgentConfig:
    """Return the agent a request is about: the one given, or the kept one. Raises `InvalidRequestError`."""
    if target.scope != "individual":
        raise InvalidRequestError(
            f"target.scope: wanted: individual; found: {target.scope}; possible: individual, a population needs an "
            "algorithm that evolves one and none is installed"
        )
    if target.config is not None:
        given = checked_json(target.config, "target.config")
        named = {"name": target.id, **given} if isinstance(given, dict) else given
        config = agent_from_json(named, allowed=engine.allowed, where="target.config")
        if config.name != target.id:
            raise InvalidRequestError(
                f"target.id: wanted: the name of the agent in target.config; found: {target.id} and {config.name}; "
                "possible: the same name twice, or leave name out of the config"
            )
        return config
    return kept_agent(engine, target.id, target.version)


def kept_agent(engine: Engine, name: str, version: str | None) -> AgentConfig:
    """Return a version of a kept agent, the newest if none is named. Raises `NotFoundError`."""
    versions = engine.stores.agents.versions(name)
    found = next((one for _, one in versions if version is None or one == version), None)
    if found is not None:
        return engine.stores.agents.get(found)
    if versions:
        raise NotFoundError(
            f"wanted: version {version} of the agent {name}; found: none; possible: "
            f"{', '.join(one for _, one in versions[:_SHOWN])}"
        )
    names = list(dict.fromkeys(known for known, _ in engine.stores.agents.versions()))
    raise NotFoundError(
        f"wanted: the agent {name}; found: none of that name{closest(name, names)}; possible: "
        f"{', '.join(names[:_SHOWN]) or 'none is kept yet'}, or target.config with its configuration"
    )


def dataset_of(engine: Engine, given: DatasetIn, agent: AgentConfig | None) -> Dataset:
    """Return the dataset a request names or brings. Raises `InvalidRequestError`."""
    ways = [name for name in ("id", "examples", "source") if getattr(given, name) is not None]
    if len(ways) != 1:
        raise InvalidRequestError(
            f"dataset: wanted: one of id, examples, source; found: {', '.join(ways) or 'none'}; possible: "
            '{"examples": [{...}]}, {"id": "<version>"}, {"source": "reasoning_gym:leg_counting?size=200"}'
        )
    if given.id is not None:
        return engine.stores.datasets.get(DatasetVersion(given.id))
    fields = _fields(given, agent)
    source: object = given.source if given.source is not None else given.examples
    shares = SplitShares(train=given.shares.train, val=given.shares.val, test=given.shares.test)
    reading = read_source(source, fields, files=False)
    return build_dataset(given.name, reading, seed=given.seed, shares=shares)


def digest_of(body: OptimizeIn) -> str:
    """Return what tells one request from another; the order of keys does not count."""
    try:
        given = body.model_dump()
        if body.policy is None:
            del given["policy"]  # keys that came before there were policies stay what they were
        plain = json.dumps(given, sort_keys=True, default=str)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            "body: wanted: values nested a few levels deep; found: more than can be read; possible: flatter examples"
        ) from error
    return hashlib.sha256(plain.encode()).hexdigest()


def completion(accepted_at: datetime, seconds: float) -> datetime | None:
    """Return when it will have ended; None when that is too far away to say."""
    if not math.isfinite(seconds) or seconds > 10 * 365 * 86400:
        return None
    return accepted_at + timedelta(seconds=seconds)


def _fields(given: DatasetIn, agent: AgentConfig | None) -> RecordFields:
    known = None if agent is None else fields_of(agent, cluster=given.cluster)
    if known is None and not (given.inputs and given.expected):
        raise InvalidRequestError(
            "dataset: wanted: which fields are inputs and which are expected; found: no agent that says so; possible: "
            '"agent": "<name>", or "inputs": ["question"], "expected": ["answer"]'
        )
    return RecordFields(
        inputs=tuple(given.inputs) or (known.inputs if known is not None else ()),
        outputs=tuple(given.expected) or (known.outputs if known is not None else ()),
        cluster=given.cluster,
        split=given.split,
        types=known.types if known is not None else {},
    )


def _specification(given: "str | Mapping[str, Json]") -> Mapping[str, Json]:
    return {"type": given} if isinstance(given, str) else given


def _task_concurrency(serving: Serving) -> int:
    limit = serving.settings.models[Role.TASK].max_concurrency
    return DEFAULT_CONCURRENCY if limit is None else limit


def check_lane(serving: Serving, lane: Lane) -> None:
    """Raise `NoGpuError` when a GPU is asked for and no worker that lives has one."""
    if lane is not Lane.GPU:
        return
    workers = [lease.worker for lease in serving.leases.leases() if lease.is_alive]
    if any(Lane.GPU in worker.lanes for worker in workers):
        return
    raise NoGpuError(
        "wanted: a worker with a GPU; found: none is alive; possible: requires_gpu: false, or start a worker on a "
        "machine with one"
    )


def _constraints(serving: Serving, given: ConstraintsIn) -> Constraints:
    deadline = given.deadline
    if deadline is not None:
        if deadline.tzinfo is None:
            raise InvalidRequestError(
                f"constraints.deadline: wanted: a time with its zone; found: {deadline.isoformat()}; possible: "
                f"{deadline.isoformat()}Z"
            )
        try:
            deadline = deadline.astimezone(UTC)
        except OverflowError as error:
            raise InvalidRequestError(
                f"constraints.deadline: wanted: a time that exists in UTC; found: {deadline.isoformat()}; possible: "
                "2030-01-01T00:00:00Z"
            ) from error
        if deadline <= datetime.now(UTC):
            raise InvalidRequestError(
                f"constraints.deadline: wanted: a time to come; found: {deadline.isoformat()}; possible: a later one"
            )
    concurrency = given.concurrency
    if given.max_resource_usage is not None:
        concurrency = max(1, math.floor(given.max_resource_usage * _task_concurrency(serving)))
        concurrency = min(concurrency, given.concurrency) if "concurrency" in given.model_fields_set else concurrency
    return Constraints(
        limits=Limits(
            max_cost_usd=given.max_cost_usd,
            max_lm_calls=given.max_lm_calls,
            max_tokens=given.max_tokens,
            max_seconds=given.max_optimization_time,
        ),
        min_improvement_threshold=given.min_improvement_threshold,
        seed=given.seed,
        concurrency=concurrency,
        lane=Lane.GPU if given.requires_gpu else Lane.CPU,
        priority=Priority(given.priority),
        deadline=deadline,
        isolation=Isolation(given.isolation),
        requires_approval=given.requires_approval,
    )
