"""From blocks of the configuration file to models that can be opened: names resolved, keys fetched."""

from collections.abc import Mapping

from dspy_optimization.adapters.models.openai_http import checked_address, checked_key
from dspy_optimization.adapters.models.spec import EMBEDDED, ModelSpec
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.model import Price, Role
from dspy_optimization.settings.config_file import ConfigFile, ModelBlock, PriceBlock

_MEANINGLESS_FOR_EMBEDDED = ("api_key_env", "price", "timeout_seconds")


class ModelNames:
    """Resolves every model of one file and gathers what is wrong with them in `problems`."""

    def __init__(self, file: ConfigFile, environment: Mapping[str, str]) -> None:
        self._named = file.named_models
        self._roles = file.models
        self._environment = environment
        self.problems: list[str] = []

    def named(self) -> dict[str, ModelSpec]:
        """Return the named models."""
        specs = {}
        for name, block in self._named.items():
            where = f"named_models.{name}"
            if name == EMBEDDED or "/" in name or not name.strip():
                self.problems.append(f"{where}: wanted a name of its own without a slash, found {name!r}")
                continue
            specs[name] = self._spec(block, where, (name,))
        return specs

    def roles(self) -> dict[Role, ModelSpec]:
        """Return who answers in which role."""
        blocks = {Role.TASK: self._roles.task, Role.REFLECTION: self._roles.reflection, Role.JUDGE: self._roles.judge}
        stated = {
            role: self._spec(block, f"models.{role.value}", ()) for role, block in blocks.items() if block is not None
        }
        task = stated.get(Role.TASK, ModelSpec(model=EMBEDDED))
        return {role: stated.get(role, task) for role in Role}

    def _spec(self, block: ModelBlock, where: str, trail: tuple[str, ...]) -> ModelSpec:
        name = block.model.model
        if block.model.base_url is None and name in self._named:
            return self._named_spec(block, where, trail)
        spec = ModelSpec(
            model=name,
            base_url=self._address(block, where),
            api_key=self._key(block, where),
            price=_price(block.price),
            requests_per_minute=block.requests_per_minute,
            tokens_per_minute=block.tokens_per_minute,
            max_concurrency=block.max_concurrency,
            timeout_seconds=block.timeout_seconds,
            deadline_seconds=block.deadline_seconds,
            max_attempts=block.max_attempts,
            fallbacks=tuple(
                self._spec(fallback, f"{where}.fallbacks[{place}]", trail)
                for place, fallback in enumerate(block.fallbacks)
            ),
        )
        if spec.base_url is None:
            self._check_string(block, where)
        return spec

    def _named_spec(self, block: ModelBlock, where: str, trail: tuple[str, ...]) -> ModelSpec:
        name = block.model.model
        if name in trail:
            self.problems.append(
                f"{where}: wanted models that do not lead back to themselves, found {' → '.join((*trail, name))}"
            )
            return ModelSpec(model=name)
        also = sorted(block.model_fields_set - {"model"})
        if also:
            self.problems.append(
                f"{where}: wanted the named model {name} as it is, found also {', '.join(also)}; "
                f"possible: state that under named_models.{name}, or give the model another name"
            )
        return self._spec(self._named[name], f"named_models.{name}", (*trail, name))

    def _check_string(self, block: ModelBlock, where: str) -> None:
        name = block.model.model
        if name == EMBEDDED:
            also = sorted(block.model_fields_set.intersection(_MEANINGLESS_FOR_EMBEDDED))
            if also:
                self.problems.append(
                    f"{where}: the embedded model runs here and costs nothing; found {', '.join(also)}; "
                    "possible: leave that out"
                )
            return
        provider, _, rest = name.partition("/")
        if not provider or not rest:
            named = ", ".join(sorted(self._named)) or "none so far"
            self.problems.append(
                f"{where}.model: wanted embedded, a named model ({named}), a LiteLLM string such as "
                f"openai/gpt-4o-mini, or {{base_url, model}}; found {name!r}"
            )

    def _address(self, block: ModelBlock, where: str) -> str | None:
        if block.model.base_url is None:
            return None
        try:
            return checked_address(block.model.base_url)
        except InvalidRequestError as error:
            self.problems.append(f"{where}.model.{error}")
            return "http://invalid"

    def _key(self, block: ModelBlock, where: str) -> str | None:
        if block.api_key_env is None:
            return None
        key = self._environment.get(block.api_key_env, "").strip()
        if not key:
            self.problems.append(
                f"{where}.api_key_env: wanted a key in the environment variable {block.api_key_env}, "
                "found it not set; possible: set it, or name another"
            )
            return None
        try:
            return checked_key(key)
        except InvalidRequestError as error:
            self.problems.append(f"{where}.api_key_env: {block.api_key_env}: {error}")
            return None


def _price(block: PriceBlock | None) -> Price | None:
    if block is None:
        return None
    return Price(prompt_usd=block.prompt_usd_per_million, completion_usd=block.completion_usd_per_million)
