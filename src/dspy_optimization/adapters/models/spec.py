"""Which model, where, at what price and within which limits: what settings say, ready to be opened."""

from dataclasses import dataclass, field
from typing import Final

from dspy_optimization.evaluation.model import Price

EMBEDDED: Final = "embedded"
"""The model string of the local model that comes with the installation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model as somebody wants it used. Equal specs share one client, its slots and its rate limits."""

    model: str
    """"embedded", a LiteLLM string `provider/name`, or with `base_url` the name the server gives it."""
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    price: Price | None = None
    """None: look it up; unknown for servers of one's own."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    """None: 64, and for the embedded model its slots."""
    timeout_seconds: float = 120.0
    max_attempts: int = 5
    deadline_seconds: float = 300.0
    """For all attempts of one call together."""
    fallbacks: tuple["ModelSpec", ...] = ()
    """Asked in order when the model fails for good."""
