"""Opens the models that settings name, once a process, and lends them to each piece of work."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeAlias

from dspy_optimization.adapters.models.litellm_client import LiteLLMModel
from dspy_optimization.adapters.models.llamacpp import EmbeddedModel
from dspy_optimization.adapters.models.openai_http import OpenAIChat
from dspy_optimization.adapters.models.prices import LOCAL, known_price, litellm_table
from dspy_optimization.adapters.models.spec import EMBEDDED, ModelSpec
from dspy_optimization.errors import NotFoundError
from dspy_optimization.evaluation.admission import Admission, AdmissionLimits
from dspy_optimization.evaluation.governor import GovernedModel, OnFallback
from dspy_optimization.evaluation.model import LanguageModel, Price, Role
from dspy_optimization.evaluation.retry import RetryPolicy
from dspy_optimization.events import Json

DEFAULT_CONCURRENCY = 64

OnRoleFallback: TypeAlias = Callable[[Role, str, str, str], None]
"""Is told role, identity wanted, identity that answers instead, and why."""


def _tell_nobody(role: Role, wanted: str, used: str, reason: str) -> None:
    """No fallback, nobody to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    model: LanguageModel
    admission: Admission


class Models:
    """Every language model of a process. Thread-safe; held by the composition root, which closes it.

    A model is opened when it is first asked for; equal specs are one model with one admission, whichever roles
    and optimizations ask it.
    """

    def __init__(
        self,
        by_role: Mapping[Role, ModelSpec],
        *,
        named: Mapping[str, ModelSpec] | None = None,
        embedded: Callable[[], EmbeddedModel] = EmbeddedModel,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing yet.

        Args:
            by_role: who answers in which role.
            named: further models, for agents that ask for one by name.
            embedded: makes the local model; called once at most.
            rng: for the jitter between attempts.
            clock: monotonic seconds.
        """
        self._by_role = dict(by_role)
        self._named = dict(named or {})
        self._embedded = embedded
        self._rng = random.Random() if rng is None else rng
        self._clock = clock
        self._lock = threading.Lock()
        self._opened: dict[ModelSpec, _Opened] = {}

    def for_work(
        self, wait: Callable[[float], None], *, on_fallback: OnRoleFallback = _tell_nobody
    ) -> dict[Role, LanguageModel]:
        """Return the model of every role for one piece of work.

        Args:
            wait: sleeps so many seconds, or raises what ends the work (`StopSignal.wait`).
            on_fallback: told for every call that another model answers; must not fail.
        """
        return {
            role: self.open(spec, wait, on_fallback=partial(on_fallback, role)) for role, spec in self._by_role.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        """What `named` knows, sorted."""
        return tuple(sorted(self._named))

    def named(
        self, name: str, wait: Callable[[float], None], *, on_fallback: OnFallback | None = None
    ) -> LanguageModel:
        """Return a named model for one piece of work. Raises `NotFoundError` with the names there are."""
        if name not in self._named:
            raise NotFoundError(
                f"model: wanted {name!r}, found {', '.join(sorted(self._named)) or 'no named model'}; "
                "possible: name it under named_models in the configuration file"
            )
        return self.open(self._named[name], wait, on_fallback=on_fallback)

    def open(
        self, spec: ModelSpec, wait: Callable[[float], None], *, on_fallback: OnFallback | None = None
    ) -> LanguageModel:
        """Return the model of a spec, governed, for one piece of work."""
        opened = self._open(replace(spec, fallbacks=()))
        return GovernedModel(
            opened.model,
            opened.admission,
            wait=wait,
            clock=self._clock,
            rng=self._rng,
            retry=RetryPolicy(max_attempts=spec.max_attempts, deadline_seconds=spec.deadline_seconds),
            fallbacks=[self.open(fallback, wait) for fallback in spec.fallbacks],
            on_fallback=(lambda _wanted, _used, _reason: None) if on_fallback is None else on_fallback,
        )

    def _open(self, spec: ModelSpec) -> _Opened:
        with self._lock:
            known = self._opened.get(spec)
            if known is None:
                model = self._model(spec)
                concurrency = spec.max_concurrency
                if concurrency is None:
                    # Beyond its slots calls would wait inside llama.cpp, where nothing can end them.
                    concurrency = model.slots if isinstance(model, EmbeddedModel) else DEFAULT_CONCURRENCY
                limits = AdmissionLimits(
                    max_concurrency=concurrency,
                    requests_per_minute=spec.requests_per_minute,
                    tokens_per_minute=spec.tokens_per_minute,
                )
                known = self._opened[spec] = _Opened(model=model, admission=Admission(limits, clock=self._clock))
            return known

    def _model(self, spec: ModelSpec) -> LanguageModel:
        if spec.base_url is not None:
            return OpenAIChat(
                spec.base_url,
                spec.model,
                api_key=spec.api_key,
                timeout_seconds=spec.timeout_seconds,
                price=spec.price,
            )
        if spec.model == EMBEDDED:
            return self._local
        price = spec.price if spec.price is not None else known_price(spec.model, self._table)
        return LiteLLMModel(spec.model, api_key=spec.api_key, timeout_seconds=spec.timeout_seconds, price=price)

    @cached_property
    def _local(self) -> EmbeddedModel:
        return self._embedded()

    @cached_property
    def _table(self) -> Mapping[str, Json]:
        return litellm_table()

    def close(self) -> None:
        """Close every model that was opened; call it when no work is left."""
        with self._lock:
            opened, self._opened = list({id(entry.model): entry for entry in self._opened.values()}.values()), {}
        for entry in opened:
            entry.model.close()


def price_of(spec: ModelSpec) -> Price | None:
    """Return what a model costs by its own statement, else by LiteLLM's table, without opening it; None: unknown."""
    if spec.price is not None:
        return spec.price
    if spec.base_url is not None:
        return None
    return LOCAL if spec.model == EMBEDDED else known_price(spec.model, litellm_table())
