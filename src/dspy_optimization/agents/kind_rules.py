"""Which keys each kind of agent needs, takes and refuses."""

from collections.abc import Mapping
from dataclasses import dataclass

from dspy_optimization.agents.config import AgentKind


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRule:
    """What a configuration of one kind is made of."""

    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    """Keys that may be given, beside those of every kind."""
    options: tuple[str, ...] = ()
    needed_options: tuple[str, ...] = ()
    closed_demos: bool = False
    """True: a demo holds fields of the signature only, for the kind adds at most `reasoning`."""


EVERY_KIND = ("format", "name", "kind", "model", "components", "demos", "adapter", "options")
OF_SOME_KINDS = ("signature", "tools", "steps", "entrypoint", "http")

_TRIES = ("n", "reward", "threshold", "fail_count", "module")

RULES: Mapping[AgentKind, KindRule] = {
    AgentKind.PREDICT: KindRule(needs=("signature",), closed_demos=True),
    AgentKind.CHAIN_OF_THOUGHT: KindRule(needs=("signature",), closed_demos=True),
    AgentKind.REACT: KindRule(needs=("signature", "tools"), options=("max_iters",)),
    AgentKind.PROGRAM_OF_THOUGHT: KindRule(needs=("signature",), options=("max_iters",)),
    AgentKind.CODE_ACT: KindRule(needs=("signature", "tools"), options=("max_iters",)),
    AgentKind.BEST_OF_N: KindRule(needs=("signature",), options=_TRIES, needed_options=("reward",)),
    AgentKind.REFINE: KindRule(needs=("signature",), options=_TRIES, needed_options=("reward",)),
    AgentKind.MULTI_CHAIN: KindRule(needs=("signature",), options=("m", "temperature")),
    AgentKind.PIPELINE: KindRule(needs=("steps",)),
    AgentKind.ENTRYPOINT: KindRule(needs=("entrypoint",)),
    AgentKind.HTTP: KindRule(needs=("http",), takes=("signature",)),
}

REFUSED_ANYWHERE: Mapping[str, str] = {
    **dict.fromkeys(
        ("lm", "model_list", "fallbacks", "custom_llm_provider"),
        "models come from the settings; a file chooses one with model: {role: ...} or {name: ...}",
    ),
    **dict.fromkeys(
        (
            "api_base", "base_url", "azure_endpoint", "aws_bedrock_runtime_endpoint", "proxies", "api_version",
        ),
        "where a model answers stands in the settings, so that no file can send your data elsewhere",
    ),
    **dict.fromkeys(
        ("api_key", "headers", "extra_headers", "organization"),
        "keys and headers stand in the settings, never in a file that is shared and stored",
    ),
    "mock_response": "it would answer in place of the model",
    "module_src": "a file holds no code; name installed code with entrypoint: package.module:function",
}  # fmt: skip
"""Keys a DSPy state or a copied configuration may bring along, each with why it is refused."""


def kinds_with(key: str) -> list[str]:
    """Return the kinds that have a key."""
    return [kind.value for kind, rule in RULES.items() if key in (*rule.needs, *rule.takes)]
