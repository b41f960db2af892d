"""The most one call can take, known before it is sent."""

from dataclasses import dataclass

from dspy_optimization.agents.candidate import canonical_json
from dspy_optimization.evaluation.model import ModelRequest, Price
from dspy_optimization.evaluation.token_estimate import completion_limit

UNSTATED_COMPLETION_TOKENS = 4096
"""Assumed for a request that says neither `max_tokens` nor `max_completion_tokens`."""

_TEMPLATE_TOKENS = 256
"""For what a chat template adds on its own: special tokens, a default system prompt, the layout of tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """An upper bound for one call."""

    cost_usd: float
    """0 for a model without a price."""
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


def worst_case(request: ModelRequest, price: Price | None) -> Need:
    """Return the most the call can take.

    The prompt counts one token a byte of the body's JSON in UTF-8, plus 256: no byte-level or byte-fallback
    tokenizer makes more tokens than bytes, whatever the language. English needs about a quarter of that. The
    surplus is held only while the call is in flight, so it costs parallelism near a cap, not budget: the last
    calls go one by one, and what stays unused in the end is less than the surplus of one call.

    Limits: pictures given by address (their tokens are not in the body), and answers without a stated maximum
    that are longer than `UNSTATED_COMPLETION_TOKENS`. Such a call is billed as what it took.
    """
    prompt_tokens = len(canonical_json(dict(request.body)).encode()) + _TEMPLATE_TOKENS
    completion_tokens = completion_limit(request.body, default=UNSTATED_COMPLETION_TOKENS)
    cost_usd = price.cost_usd(prompt_tokens, completion_tokens) if price is not None else 0.0
    return Need(cost_usd=cost_usd, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
