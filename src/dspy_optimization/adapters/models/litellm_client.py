"""Any model LiteLLM knows, by its string: `openai/…`, `anthropic/…`, `gemini/…`, `bedrock/…`.

Of this neighbour one must know: importing it takes seconds, and without a network it hangs, unless it is told
first to use the price table it ships (litellm 1.106, `LITELLM_LOCAL_MODEL_COST_MAP`). It retries
twice unless it is told not to, and it prints advertisements on errors.
"""

import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import ModuleType

from dspy_optimization.adapters.models.answer import parsed, response
from dspy_optimization.adapters.models.failures import refusal, retry_after_seconds, scrub
from dspy_optimization.errors import InvalidRequestError, ModelError
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Price

COST_MAP_VARIABLE = "LITELLM_LOCAL_MODEL_COST_MAP"


def import_litellm() -> ModuleType:
    """Return the package, imported so that it neither waits for a network nor prints. Takes seconds once."""
    os.environ.setdefault(COST_MAP_VARIABLE, "True")
    litellm = importlib.import_module("litellm")
    vars(litellm)["suppress_debug_info"] = True
    return litellm


class LiteLLMModel:
    """One model by its LiteLLM string. Thread-safe; never retries."""

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 120.0,
        price: Price | None = None,
        base_url: str | None = None,
        load: Callable[[], ModuleType] = import_litellm,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Import nothing yet.

        Args:
            model: `provider/name`.
            api_key: None: LiteLLM looks for the provider's own environment variable.
            timeout_seconds: for one whole answer.
            price: None: not known.
            base_url: in place of the provider's own address.
            load: gives the package on the first call.
            clock: seconds, for latency.
            now: aware, for `Retry-After` dates.
        Raises:
            InvalidRequestError: the string has no provider.
        """
        provider, _, name = model.partition("/")
        if not provider or not name:
            raise InvalidRequestError(
                f"model: wanted a LiteLLM string such as openai/gpt-4o-mini or ollama_chat/qwen3:8b, found {model!r}"
            )
        self._model = model
        self._key = api_key
        self._timeout_seconds = timeout_seconds
        self._price = price
        self._base_url = base_url
        self._load = load
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._litellm: ModuleType | None = None
        self._who = f"model {model}" + (f" at {base_url}" if base_url else "")

    def __repr__(self) -> str:
        return f"LiteLLMModel({self._model!r})"

    @property
    def identity(self) -> str:
        """`litellm:<model>`, with `@<base_url>` where there is one."""
        return f"litellm:{self._model}" + (f"@{self._base_url}" if self._base_url else "")

    @property
    def price(self) -> Price | None:
        """None: not known."""
        return self._price

    def complete(self, request: ModelRequest) -> ModelResponse:
        """Return the answer of one attempt, or raise `ModelError`."""
        litellm = self._package()
        options = {
            **request.body,
            "model": self._model,
            "api_key": self._key,
            "timeout": self._timeout_seconds,
            "num_retries": 0,
            "max_retries": 0,
        }
        if self._base_url is not None:
            options["api_base"] = self._base_url
        started = self._clock()
        try:
            answer = litellm.completion(**options)
        except litellm.exceptions.APIConnectionError as error:
            raise self._broken(error) from error
        except litellm.exceptions.Timeout as error:
            raise ModelError(
                f"{self._who}: wanted an answer within {self._timeout_seconds:g} s, found none; "
                "possible: check the provider, raise timeout_seconds or lower max_tokens",
                retryable=True,
            ) from error
        except litellm.exceptions.openai.OpenAIError as error:
            raise self._refused(error) from error
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            # Before anything is sent: an unknown option, a certificate that is not there.
            raise self._broken(error) from error
        latency = self._clock() - started
        return response(parsed(answer.model_dump_json(), who=self._who), request, latency, who=self._who)

    def _package(self) -> ModuleType:
        with self._lock:
            if self._litellm is None:
                self._litellm = self._load()
            return self._litellm

    def _refused(self, error: Exception) -> ModelError:
        status = getattr(error, "status_code", None)
        detail = scrub(" ".join(str(error).split()), self._key)[:600]
        headers = getattr(error, "litellm_response_headers", None)
        wait = retry_after_seconds(headers, self._now()) if isinstance(headers, Mapping) else None
        if not isinstance(status, int) or not 300 <= status <= 599:
            return self._broken(error)
        return refusal(status, detail, who=self._who, retry_after=wait)

    def _broken(self, error: Exception) -> ModelError:
        detail = scrub(" ".join(str(error).split()), self._key)[:600]
        return ModelError(
            f"{self._who}: wanted an answer, found {type(error).__name__} ({detail}); "
            "possible: check the network and the provider, then resume",
            retryable=True,
        )

    def close(self) -> None:
        """Free nothing: LiteLLM keeps its connections for the whole process."""
