"""DSPy's language model on top of the ledger: every call DSPy makes is a call of one optimization.

Neighbours' habits that this module answers to (dspy 3.4.1):

- `rollout_id` is stripped before an engine sees the request, and `n=3` is three engine calls with one and the same
  request. Both are draws that ask the same on purpose, so both belong into the key of the ledger: `LedgerModel`
  leaves them in a context variable, `LedgerEngine` reads them there.
- At temperature 0 an answer is a function of the request; DSPy nevertheless pays again for every rollout id.
  Here the draw does not count at temperature 0.
- `BaseLM.forward`, `complete_legacy` and OpenAI dictionaries go away in 3.5; `LM(engine=...)` with
  `complete(Request) -> Response` stays, and so does `LM.__call__(..., rollout_id=...)`.
- LMs are deep-copied with every program. An engine is copied by reference, an LM without its history.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, Self, cast

import dspy
from dspy import lm15

from dspy_optimization.errors import (
    InfrastructureError,
    InfrastructureFailed,
    InvalidRequestError,
    ModelError,
    ModelRequestError,
)
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.events import Json

SAMPLING_PARAMETERS = frozenset(
    {"temperature", "max_tokens", "top_p", "top_k", "seed", "stop", "frequency_penalty", "presence_penalty", "n"}
)
"""What a model may be asked with beside the messages; everything else is the settings' business."""

_NOT_IN_A_BODY = ("model", "stream", "stream_options", "n")

# What servers say when a prompt does not fit: OpenAI and vLLM ("maximum context length", code
# "context_length_exceeded"), llama.cpp ("exceeds the available context size", "exceed_context_size_error"),
# Anthropic ("prompt is too long").
_TOO_LONG = re.compile(r"context[ _-]?(length|size|window)|(prompt|input|request) is too long|too many tokens", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the model behind the ledger can be asked for; DSPy's adapters read it."""

    response_schema: bool = True
    """The server constrains answers to a JSON schema: `JSONAdapter` then sends one (dspy#8440, #8632)."""
    function_calling: bool = False
    """False: tools are described in the prompt, which every model can read."""
    reasoning: bool = False

    @property
    def parameters(self) -> frozenset[str]:
        """Request options in OpenAI's spelling that reach the model."""
        tools = {"tools", "tool_choice", "parallel_tool_calls"} if self.function_calling else set[str]()
        return frozenset(SAMPLING_PARAMETERS | {"response_format", "max_completion_tokens", "logprobs"} | tools)


class _Draw:
    """One call of an LM: its rollout id, and how many answers it has drawn so far."""

    def __init__(self, rollout: object) -> None:
        self.rollout = "" if rollout is None else str(rollout)
        self.answers = 0

    def next(self) -> str:
        """Return the name of the next draw; empty for the first one without a rollout id."""
        index = self.answers
        self.answers += 1
        return f"{self.rollout}#{index}" if index else self.rollout


_draw: ContextVar[_Draw | None] = ContextVar("dspy_optimization_draw", default=None)


def _chat_wire() -> lm15.OpenAIChatLM:
    # Builds bodies only: nothing is ever sent through it, and the key is never read.
    compat = lm15.OpenAIChatCompat(max_tokens_field="max_tokens", instruction_role="system")
    return lm15.OpenAIChatLM(api_key="unused", compat=compat)


class LedgerEngine:
    """Answers DSPy's requests through the ledger of one optimization. Thread-safe; copied by reference."""

    def __init__(self, calls: Calls, role: Role, *, capabilities: Capabilities, model: str | None = None) -> None:
        self._calls = calls
        self._role = role
        self._model = model
        self._named: dict[str, LedgerEngine] = {}
        self._capabilities = capabilities
        self._wire = _chat_wire()
        self.supports_response_schema = capabilities.response_schema
        self.supports_function_calling = capabilities.function_calling
        self.supports_reasoning = capabilities.reasoning
        self.supported_params = capabilities.parameters

    def for_role(self, role: Role) -> "LedgerEngine":
        """Return the engine that asks the model of another role in the same optimization."""
        if role is self._role and self._model is None:
            return self
        return LedgerEngine(self._calls, role, capabilities=self._capabilities)

    def for_model(self, name: str) -> "LedgerEngine":
        """Return the engine that asks a model by its name, on the account of the tasks."""
        known = self._named.get(name)
        if known is None:
            # Two threads may make two: either answers the same.
            known = LedgerEngine(self._calls, Role.TASK, capabilities=self._capabilities, model=name)
            self._named[name] = known
        return known

    def complete(self, request: lm15.Request) -> lm15.Response:
        """Return the answer to one draw.

        Raises:
            lm15.InvalidRequestError: the model refuses this request; DSPy fails the example with it.
            StopSearch: the work has to end; passes through DSPy untouched.
        """
        asked = ModelRequest(body=self.body(request), sample=_sample(request), model=self._model)
        try:
            answer = self._calls.call(self._role, asked)
        except ModelRequestError as error:
            _refuse(error)
        except InfrastructureError as error:
            # DSPy scores every Exception as a bad answer; only a stop gets past it.
            raise InfrastructureFailed(error) from error
        return _response(answer, request)

    def stream(self, request: lm15.Request) -> Iterator[lm15.StreamStartEvent]:
        """Yield the events of one complete answer: the ledger keeps whole answers only."""
        yield from lm15.response_to_events(self.complete(request))

    def close(self) -> None:
        """Do nothing: the calls belong to the optimization."""

    def body(self, request: lm15.Request) -> dict[str, Json]:
        """Return the request as an OpenAI chat body without `model`, `stream` and `n`."""
        body = cast("dict[str, Json]", json.loads(self._wire.build_request(request, False).body))
        for name in _NOT_IN_A_BODY:
            body.pop(name, None)
        if request.config.top_k is not None:
            # OpenAI has no top_k, so lm15 leaves it out; llama.cpp, vLLM and Ollama read it.
            body["top_k"] = request.config.top_k
        return body

    def dump_state(self) -> dict[str, Json]:
        """Return what a saved program says of this engine, so that saving one never raises: its role alone."""
        return {"role": self._role.value}

    @classmethod
    def load_state(cls, state: Mapping[str, Json]) -> NoReturn:
        """Refuse: an engine belongs to a running optimization and is never read from a file.

        Raises:
            InvalidRequestError: always.
        """
        raise InvalidRequestError(
            f"a saved program wants the {state.get('role', 'task')} model of an optimization that is over; "
            "possible: program.set_lm(dspy.LM(...)), or save the program without its LM"
        )

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self


class AsyncLedgerEngine:
    """The same for programs that call their predictors with `acall`: each call waits in a thread."""

    def __init__(self, engine: LedgerEngine) -> None:
        self._engine = engine
        self.dump_state = engine.dump_state

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """Return what `LedgerEngine.complete` returns."""
        return await asyncio.to_thread(self._engine.complete, request)

    @classmethod
    def load_state(cls, state: Mapping[str, Json]) -> NoReturn:
        """Refuse, as `LedgerEngine.load_state` does."""
        LedgerEngine.load_state(state)

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self


class LedgerModel(dspy.LM):
    """A `dspy.LM` whose answers come from the ledger, and whose draws have names there."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what `dspy.LM` returns; names the draw for the engine."""
        token = _draw.set(_Draw(kwargs.get("rollout_id", self.kwargs.get("rollout_id"))))
        try:
            return super().__call__(*args, **kwargs)
        finally:
            _draw.reset(token)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Return what `dspy.LM.acall` returns; names the draw for the engine."""
        token = _draw.set(_Draw(kwargs.get("rollout_id", self.kwargs.get("rollout_id"))))
        try:
            return await super().acall(*args, **kwargs)
        finally:
            _draw.reset(token)

    def for_role(self, role: Role) -> "LedgerModel":
        """Return the model of another role of the same optimization, asked with the same parameters."""
        engine = self.engine.for_role(role)
        return self if engine is self.engine else self._through(engine)

    def for_model(self, name: str) -> "LedgerModel":
        """Return the model of this name in the same optimization, asked with the same parameters and draw."""
        return self._through(self.engine.for_model(name))

    def _through(self, engine: LedgerEngine) -> "LedgerModel":
        return cast("LedgerModel", self.copy(engine=engine, async_engine=AsyncLedgerEngine(engine)))

    def __deepcopy__(self, memo: dict[int, object]) -> "LedgerModel":
        # Parameters and callbacks are the copy's own, the engine is shared, the history stays behind:
        # optimizers deep-copy programs thousands of times, and DSPy would copy 10,000 entries each time.
        return cast("LedgerModel", self.copy())

    def _warn_zero_temp_rollout(self, *_: object) -> None:
        """Say nothing: optimizers pass rollout ids at temperature 0 as a matter of course; here that costs nothing."""


def language_model(
    calls: Calls,
    role: Role,
    parameters: Mapping[str, Json],
    model_label: str,
    *,
    capabilities: Capabilities | None = None,
) -> LedgerModel:
    """Return the `dspy.LM` that asks one role's model through the ledger. Thread-safe, cheap to copy.

    DSPy's own cache and retries are off: the ledger is the cache, and the model behind it retries.

    Args:
        calls: where the calls go.
        role: whose model is asked, and on whose account.
        parameters: sampling parameters of every request; see `SAMPLING_PARAMETERS`.
        model_label: how DSPy and people call it in messages; no part of any request.
        capabilities: what the model can be asked for.
    Raises:
        InvalidRequestError: a parameter that is no sampling parameter, or one this model family refuses.
    """
    unknown = sorted(set(parameters) - SAMPLING_PARAMETERS)
    if unknown:
        raise InvalidRequestError(
            f"sampling parameters are wanted for {model_label}, found {', '.join(unknown)}; "
            f"possible: {', '.join(sorted(SAMPLING_PARAMETERS))}"
        )
    engine = LedgerEngine(calls, role, capabilities=capabilities if capabilities is not None else Capabilities())
    try:
        return LedgerModel(
            model_label,
            engine=engine,
            async_engine=AsyncLedgerEngine(engine),
            cache=False,
            num_retries=0,
            **parameters,
        )
    except (dspy.LMConfigurationError, ValueError) as error:
        raise InvalidRequestError(
            f"the model {model_label} cannot be asked with {dict(parameters)}: {error}; possible: change its parameters"
        ) from error


def _sample(request: lm15.Request) -> str:
    draw = _draw.get()
    # A server's default temperature is above 0: only a stated 0 makes the answer a function of the request.
    if draw is None or request.config.temperature == 0:
        return ""
    return draw.next()


def _refuse(error: ModelRequestError) -> NoReturn:
    """Raise the refusal as DSPy's own kind, so that agents that shorten their trajectory when it is too long do."""
    kind = lm15.ContextLengthError if _TOO_LONG.search(str(error)) else lm15.InvalidRequestError
    raise kind(str(error)) from error


def _response(answer: ModelResponse, request: lm15.Request) -> lm15.Response:
    try:
        return lm15.response_from_openai_chat(
            dict(answer.body), model=request.model, response_format=request.config.response_format
        )
    except (lm15.LM15Error, TypeError, ValueError) as error:
        reason = ModelError(
            f"the model of {request.model} answered something that is no OpenAI chat completion: {error}; "
            "check that its base_url speaks /chat/completions"
        )
        raise InfrastructureFailed(reason) from error
