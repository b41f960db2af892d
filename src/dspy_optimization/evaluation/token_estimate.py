"""How many tokens a question may take, counted without a tokenizer."""

from collections.abc import Mapping

from dspy_optimization.agents.candidate import canonical_json
from dspy_optimization.evaluation.model import ModelRequest
from dspy_optimization.events import Json

BYTES_PER_TOKEN = 2
"""English has about 4 bytes a token, code 3, Chinese and Japanese 2 to 3: 2 counts high for all of them."""
MESSAGE_TOKENS = 8
"""What a chat template adds around one message, counted high."""
DEFAULT_COMPLETION_TOKENS = 1024
"""Assumed for a request that sets no `max_tokens`."""


def text_tokens(text: str) -> int:
    """Return a number of tokens that the text hardly exceeds with any common tokenizer."""
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def prompt_tokens(body: Mapping[str, Json]) -> int:
    """Return a number of tokens that the prompt of a chat body hardly exceeds: messages, tools and schema."""
    total = 0
    for name in ("messages", "tools", "response_format"):
        value = body.get(name)
        if value is not None:
            total += text_tokens(canonical_json(value))
    messages = body.get("messages")
    return total + MESSAGE_TOKENS * (len(messages) if isinstance(messages, list) else 1)


def completion_limit(body: Mapping[str, Json], default: int = DEFAULT_COMPLETION_TOKENS) -> int:
    """Return the most tokens the answer may have, by `max_completion_tokens` or `max_tokens`, else the default."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if isinstance(value, int) and value > 0:
            return value
    return default


def request_tokens(request: ModelRequest) -> int:
    """Return a number of tokens that prompt and answer together hardly exceed."""
    return prompt_tokens(request.body) + completion_limit(request.body)
