"""What a language model is asked and what it answers, in the one wire shape everybody speaks.

Bodies are OpenAI chat-completion JSON: `messages`, `temperature`, `max_tokens`, `response_format`, `tools`, … in;
`choices`, `usage`, `model` out. Adapters translate from and to DSPy; clients post bodies to servers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType, Protocol

from dspy_optimization.agents.candidate import content_hash
from dspy_optimization.events import Json

CallKey = NewType("CallKey", str)


class Role(StrEnum):
    """Who in an optimization asks a model."""

    TASK = "task"  # the agent itself
    REFLECTION = "reflection"  # algorithms that propose
    JUDGE = "judge"  # metrics that ask a model


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Dollars per million tokens."""

    prompt_usd: float
    completion_usd: float

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what so many tokens cost, in dollars."""
        return (prompt_tokens * self.prompt_usd + completion_tokens * self.completion_usd) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One question to a language model."""

    body: Mapping[str, Json]
    """OpenAI chat body without `model`, `stream` and `n`."""
    sample: str = ""
    """Distinguishes draws that ask the same on purpose: rollout id and index; empty for the one answer."""
    model: str | None = None
    """Who is asked in place of the role's model: a name among those the settings list. No part of the question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResponse:
    """One answer of a language model."""

    body: Mapping[str, Json]
    """OpenAI chat-completion body with exactly one choice."""
    prompt_tokens: int
    completion_tokens: int
    latency_seconds: float
    """Of the call that was paid, without time spent waiting for a slot or a retry."""
    answered_by: str | None = None
    """Identity of the fallback that answered; None: the model that was asked."""
    cost_usd: float | None = None
    """What the answer cost at the price of whoever answered; None: tokens times the price of the model asked."""


class LanguageModel(Protocol):
    """One model at one place. Thread-safe; one attempt a call; raises `ModelError` and its children."""

    @property
    def identity(self) -> str:
        """Name and endpoint: two models that could answer differently have different identities."""
        ...

    @property
    def price(self) -> Price | None:
        """What a token costs at most, fallbacks counted; None: not known."""
        ...

    def complete(self, request: ModelRequest) -> ModelResponse:
        """Return the answer of one attempt, or raise `ModelError`."""
        ...

    def close(self) -> None:
        """Free what the model holds (connections, a local server)."""
        ...


def call_key(identity: str, request: ModelRequest) -> CallKey:
    """Return the content key of a call: same model, same place, same question, same draw."""
    return CallKey(content_hash({"model": identity, "body": dict(request.body), "sample": request.sample}))
