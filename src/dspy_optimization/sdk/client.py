"""The engine behind HTTP: the same nouns as the library has, and nothing of it needs to be installed but this."""

import os
from collections.abc import Iterator, Sequence
from typing import Self

import httpx

from dspy_optimization.sdk.agents import Agents
from dspy_optimization.sdk.answers import Accepted, Estimate, OptimizationStatus, Summary
from dspy_optimization.sdk.catalog import Algorithm, CustomAlgorithm, MetricType, Model, ModelTest, System
from dspy_optimization.sdk.datasets import Datasets
from dspy_optimization.sdk.experiments import Experiments
from dspy_optimization.sdk.handle import OptimizationHandle
from dspy_optimization.sdk.live_agent import LiveAgent
from dspy_optimization.sdk.pages import items, pages
from dspy_optimization.sdk.request import (
    AgentOrTarget,
    Algorithms,
    Constraints,
    ExamplesSource,
    Objectives,
    OptimizationRequest,
    Record,
)
from dspy_optimization.sdk.retries import Retries, Surroundings
from dspy_optimization.sdk.schedules import Schedules
from dspy_optimization.sdk.transport import Address, Transport, segment

DEFAULT_URL = "http://127.0.0.1:8004"


class Client:
    """A service and who asks it. Owns its connections: `close` it, or use it in a `with`.

    Not given, `base_url` is what DSPY_OPT_URL says, else http://127.0.0.1:8004, and `api_key` what DSPY_OPT_API_KEY
    says, else none. With a `transport` of its own, everything goes through it, and there are no WebSockets.
    Not to be shared by threads while one of them closes it; otherwise it may.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 60.0,
        transport: httpx.BaseTransport | None = None,
        retries: Retries | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        url = base_url if base_url is not None else os.environ.get("DSPY_OPT_URL") or DEFAULT_URL
        key = api_key if api_key is not None else os.environ.get("DSPY_OPT_API_KEY") or None
        self._transport = Transport(
            Address(url=url),
            key,
            timeout_seconds=timeout_seconds,
            retries=retries if retries is not None else Retries(),
            surroundings=surroundings if surroundings is not None else Surroundings(),
            transport=transport,
        )
        self.agents = Agents(self._transport)
        self.datasets = Datasets(self._transport)
        self.schedules = Schedules(self._transport)
        self.experiments = Experiments(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._transport.address.base!r})"

    def close(self) -> None:
        """End all connections."""
        self._transport.close()

    def optimize(
        self,
        agent: AgentOrTarget,
        examples: ExamplesSource,
        objectives: Objectives = "exact_match",
        *,
        algorithms: Algorithms | None = None,
        metrics: Sequence[str | Record] = (),
        constraints: Constraints | None = None,
        policy: str | Record | None = None,
        idempotency_key: str | None = None,
    ) -> OptimizationHandle:
        """Hand an optimization in and return at once; a worker of the service carries it out.

        Args:
            agent: a configuration, the path of an agent file, or the name of a registered agent; `Target` says more.
            examples: mappings, the id of a dataset, or the path of a `.jsonl` or `.json` file; `Examples` says more.
            objectives: one or several metrics; the first that is no guardrail decides.
            algorithms: names, or names with options; not given: as the service chooses.
            metrics: specifications of the metrics that the objectives name, where a name alone does not do.
            constraints: caps and bounds.
            policy: which candidate goes to the gate; not given: the one of the best weighted utility.
            idempotency_key: the same key again is the same optimization; not given: a fresh one.
        Raises:
            InvalidRequestError: the request cannot be carried out; says what to mend.
            QueueFullError: as many wait as may wait, after the last attempt too.
            NoGpuError: a GPU is asked for and no worker has one.
        """
        request = OptimizationRequest(
            agent=agent,
            examples=examples,
            objectives=objectives,
            algorithms=algorithms,
            metrics=metrics,
            constraints=constraints,
            policy=policy,
        )
        return self.submit(request, idempotency_key=idempotency_key)

    def submit(self, request: OptimizationRequest, *, idempotency_key: str | None = None) -> OptimizationHandle:
        """Hand in a request that is a value; otherwise as `optimize`."""
        key = idempotency_key if idempotency_key is not None else self._transport.surroundings.new_key()
        accepted = self._transport.post_as(Accepted, "/optimize", request.to_json(), idempotency_key=key)
        return OptimizationHandle(self._transport, accepted.optimization_id)

    def estimate(
        self,
        agent: AgentOrTarget,
        examples: ExamplesSource,
        objectives: Objectives = "exact_match",
        *,
        algorithms: Algorithms | None = None,
        metrics: Sequence[str | Record] = (),
        constraints: Constraints | None = None,
    ) -> Estimate:
        """Return what `optimize` with the same arguments would take at most; nothing is kept and nothing is paid."""
        request = OptimizationRequest(
            agent=agent,
            examples=examples,
            objectives=objectives,
            algorithms=algorithms,
            metrics=metrics,
            constraints=constraints,
        )
        return self._transport.post_as(Estimate, "/estimate", request.to_json())

    def agent(self, name: str, *, timeout_seconds: float = 2.0, pause_seconds: float = 5.0) -> LiveAgent:
        """Return an agent under live traffic; keep it, for it remembers what was live when the service goes away.

        Args:
            name: of the agent.
            timeout_seconds: how long a request of yours may wait for the service.
            pause_seconds: how long the service is not asked after it did not answer.
        """
        return LiveAgent(self._transport, name, timeout_seconds=timeout_seconds, pause_seconds=pause_seconds)

    def optimization(self, optimization_id: str) -> OptimizationHandle:
        """Return the handle of an optimization that was handed in before; the service is not asked."""
        return OptimizationHandle(self._transport, optimization_id)

    def optimizations(
        self,
        *,
        status: OptimizationStatus | str | None = None,
        target: str | None = None,
        algorithm: str | None = None,
        newest_first: bool = True,
    ) -> Iterator[Summary]:
        """Yield all optimizations that are like this, page after page."""
        wanted = {
            "status": None if status is None else str(status),
            "target": target,
            "algorithm": algorithm,
            "sort": "-created_at" if newest_first else "created_at",
        }
        return pages(self._transport, Summary, "/optimizations", wanted)

    def algorithms(self) -> tuple[Algorithm, ...]:
        """Return the algorithms that can be used, with their options."""
        return items(self._transport.get("/algorithms/available"), Algorithm, "/algorithms/available")

    def custom_algorithms(self) -> tuple[CustomAlgorithm, ...]:
        """Return the registered algorithms, also those that cannot be used now."""
        return tuple(pages(self._transport, CustomAlgorithm, "/algorithms/custom"))

    def add_algorithm(self, entrypoint: str, name: str | None = None) -> CustomAlgorithm:
        """Return an algorithm that is checked and registered now; that takes from seconds to three minutes.

        Args:
            entrypoint: `module:Class`, installed where the service runs and on its owner's list.
            name: how requests will call it; None: what it calls itself.
        Raises:
            InvalidRequestError: it is not allowed or breaks a rule; says which, and how to mend it.
            ConflictError: an installed algorithm has that name.
        """
        body = {"entrypoint": entrypoint} if name is None else {"entrypoint": entrypoint, "name": name}
        return self._transport.post_as(CustomAlgorithm, "/algorithms/custom", body, timeout_seconds=400.0)

    def remove_algorithm(self, name: str) -> None:
        """Forget a registered algorithm. Raises `NotFoundError`."""
        self._transport.delete(f"/algorithms/custom/{segment(name)}")

    def metrics(self) -> tuple[MetricType, ...]:
        """Return the types of metrics."""
        return items(self._transport.get("/metrics/available"), MetricType, "/metrics/available")

    def models(self) -> tuple[Model, ...]:
        """Return which model answers for which role."""
        return items(self._transport.get("/models"), Model, "/models")

    def test_model(self, role: str) -> ModelTest:
        """Return whether the model of a role answers; one call is paid."""
        return self._transport.post_as(ModelTest, f"/models/{segment(role)}/test")

    def system(self) -> System:
        """Return the queue and the workers."""
        return self._transport.get_as(System, "/system")
