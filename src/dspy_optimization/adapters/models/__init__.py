"""Everything between the ledger and a language model."""

from dspy_optimization.adapters.models.factory import Models, OnRoleFallback, price_of
from dspy_optimization.adapters.models.litellm_client import LiteLLMModel, import_litellm
from dspy_optimization.adapters.models.llamacpp import EmbeddedModel
from dspy_optimization.adapters.models.openai_http import OpenAIChat
from dspy_optimization.adapters.models.prices import known_price, litellm_table
from dspy_optimization.adapters.models.spec import EMBEDDED, ModelSpec

__all__ = [
    "EMBEDDED",
    "EmbeddedModel",
    "LiteLLMModel",
    "ModelSpec",
    "Models",
    "OnRoleFallback",
    "OpenAIChat",
    "import_litellm",
    "known_price",
    "litellm_table",
    "price_of",
]
