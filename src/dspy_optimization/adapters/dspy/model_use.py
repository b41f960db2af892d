"""How a program asks its model: prompt layout, role, sampling parameters."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_optimization.adapters.dspy.asking import NAMED_MODELS
from dspy_optimization.adapters.dspy.engine import LedgerModel
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.model import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """What a configuration says of prompts and model."""

    adapter: Any
    """A `dspy.Adapter`."""
    role: Role
    parameters: Mapping[str, float | int]

    @classmethod
    def of(cls, config: AgentConfig, *, json_fallback: bool = False) -> "ModelUse":
        """Return how this agent asks.

        Args:
            config: the agent.
            json_fallback: see `adapter_named`.
        Raises:
            InvalidRequestError: no such adapter or role.
        """
        roles = {role.value: role for role in Role}
        if config.model.role not in roles:
            raise InvalidRequestError(
                f"a role is wanted in model.role of {config.name}, found {config.model.role}; "
                f"possible: {', '.join(roles)}"
            )
        adapter = adapter_named(config.adapter, json_fallback=json_fallback)
        # A model chosen by name stands in for the task role's, whatever role it would have been.
        role = roles[config.model.role] if config.model.name is None else Role.TASK
        return cls(adapter=adapter, role=role, parameters=dict(config.model.parameters))

    def model(self, lm: Any) -> Any:
        """Return the LM asked this way: another role where the ledger answers, the caller's own LM elsewhere."""
        if isinstance(lm, LedgerModel):
            lm = lm.for_role(self.role)
        return lm.copy(**self.parameters) if lm is not None and self.parameters else lm

    def context(self, lm: Any) -> AbstractContextManager[object]:
        """Return the `dspy.context` in which a program asks this way, also the models it asks by name."""
        named = {name: self.model(one) for name, one in (dspy.settings.get(NAMED_MODELS) or {}).items()}
        settings = {"lm": self.model(lm), "adapter": self.adapter, NAMED_MODELS: named}
        context: AbstractContextManager[object] = dspy.context(**settings)
        return context


def adapter_named(name: str, *, json_fallback: bool = False) -> Any:
    """Return the DSPy adapter that lays out prompts and reads answers.

    Args:
        name: chat, json or xml. `json` sends a JSON schema where the model can be constrained by one.
        json_fallback: DSPy's own default: ask a second time, for JSON, when an answer cannot be read. That doubles
            the price of exactly the worst candidates and hides which format the model fails at, so here it is a
            choice.
    Raises:
        InvalidRequestError: there is no such adapter.
    """
    match name:
        case "chat":
            return dspy.ChatAdapter(use_json_adapter_fallback=json_fallback)
        case "json":
            return dspy.JSONAdapter()
        case "xml":
            return dspy.XMLAdapter(use_json_adapter_fallback=json_fallback)
    raise InvalidRequestError(f"an adapter is wanted, found {name}; possible: chat, json, xml")
