"""Agents that are black boxes behind an address: POST {inputs, components} → {outputs}.

The texts of the configuration's components travel with every request, so optimizers can change them like prompts.
What the box does inside, and which models it pays, is its own business: the ledger does not see it.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import dspy
import httpx

from dspy_optimization.adapters.dspy.components import read_candidate
from dspy_optimization.adapters.dspy.json_values import json_object
from dspy_optimization.agents.candidate import ComponentName
from dspy_optimization.agents.config import HttpEndpoint
from dspy_optimization.agents.example import Usage
from dspy_optimization.errors import InfrastructureError, InfrastructureFailed, InvalidRequestError, ProgramError
from dspy_optimization.events import Json

RETRY_PAUSES_SECONDS = (0.5, 1.0, 2.0)
ANSWER_BYTES = 4 << 20
REQUEST_BYTES = 4 << 20

# The box understood and refuses this input: its answer to this example. Everything else is a broken box.
_REFUSED_INPUT = frozenset({400, 413, 422})
_TRY_AGAIN = frozenset({408, 409, 425, 429})


class MeasuredPrediction(dspy.Prediction):
    """An answer that brings its own bill: no LM call of ours stands behind it."""

    usage: Usage = Usage()

    @classmethod
    def measured(cls, outputs: Mapping[str, Json], usage: Usage) -> Self:
        """Return the answer with its bill."""
        result = cls(**outputs)
        object.__setattr__(result, "usage", usage)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """What the box said, and how long it took."""

    body: Mapping[str, Json]
    seconds: float


class HttpBox:
    """One black box. Thread-safe; copied by reference; follows no redirects and no proxies of the environment."""

    def __init__(
        self,
        endpoint: HttpEndpoint,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Open nothing yet.

        Args:
            endpoint: its host was checked against the allow-list when the agent was built.
            transport: None: real sockets.
            sleep: waits between tries.
            seconds: a clock, for latency.
        """
        self._url = endpoint.url
        self._sleep = sleep
        self._seconds = seconds
        self._limit_seconds = endpoint.timeout_seconds
        self._client = httpx.Client(
            timeout=endpoint.timeout_seconds, follow_redirects=False, trust_env=False, transport=transport
        )

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, inputs: Mapping[str, Json], components: Mapping[str, Json]) -> HttpAnswer:
        """Return the box's answer, tried up to four times.

        Raises:
            ProgramError: the box refuses this input, or its answer is no {outputs}.
            InfrastructureFailed: it cannot be reached or is broken.
        """
        content = json.dumps({"inputs": inputs, "components": components}, ensure_ascii=False).encode()
        if len(content) > REQUEST_BYTES:
            raise ProgramError(f"{self._url} is sent at most {REQUEST_BYTES} bytes, found {len(content)}")
        found = ""
        for pause in (*RETRY_PAUSES_SECONDS, None):
            started = self._seconds()
            try:
                status, answer = self._post(content)
            except httpx.HTTPError as error:
                again, found = True, f"{type(error).__name__}: {error}"
            else:
                if status == 200:
                    return HttpAnswer(body=self._read(answer), seconds=self._seconds() - started)
                again, found = self._refused(status, answer)
            if not again or pause is None:
                break
            self._sleep(pause)
        raise InfrastructureFailed(
            InfrastructureError(
                f"the agent at {self._url}: wanted HTTP 200 with {{outputs}}, found {found}; possible: start or mend "
                "it, or mend http.url (redirects are not followed), then resume"
            )
        )

    def _refused(self, status: int, answer: bytes) -> tuple[bool, str]:
        """Return whether to try again, and what was found."""
        found = f"HTTP {status}: {answer[:200].decode('utf-8', 'replace')}"
        if status in _REFUSED_INPUT:
            raise ProgramError(f"{self._url} refuses this input, {found}")
        return status in _TRY_AGAIN or status >= 500, found

    def _post(self, content: bytes) -> tuple[int, bytes]:
        headers = {"content-type": "application/json", "accept": "application/json"}
        deadline = self._seconds() + self._limit_seconds
        with self._client.stream("POST", self._url, content=content, headers=headers) as response:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > ANSWER_BYTES:
                    raise ProgramError(f"{self._url} answers with more than {ANSWER_BYTES} bytes")
                if self._seconds() > deadline:
                    raise httpx.ReadTimeout(f"no whole answer within {self._limit_seconds:g} s")
            return response.status_code, bytes(body)

    def _read(self, answer: bytes) -> dict[str, Json]:
        try:
            body = json.loads(answer)
        except ValueError as error:
            raise ProgramError(f"{self._url}: JSON is wanted, found {answer[:200]!r}") from error
        if not isinstance(body, dict) or not isinstance(body.get("outputs"), dict):
            raise ProgramError(f"{self._url}: {{outputs: {{…}}}} is wanted, found {answer[:200]!r}")
        return cast("dict[str, Json]", body)


class HttpProgram(dspy.Module):
    """A black box as a program: each component is a predictor that holds its text and is never asked itself."""

    asks_no_predictor = True

    def __init__(self, box: HttpBox, components: tuple[ComponentName, ...], signature: Any) -> None:
        super().__init__()
        self.box = box
        for name in components:
            if not name.isidentifier() or hasattr(self, name):
                raise InvalidRequestError(
                    f"components of an HTTP agent are named by Python identifiers that DSPy modules do not use "
                    f"themselves, found {name}; possible: {name.replace('.', '_').replace('-', '_')}_text"
                )
            setattr(self, name, dspy.Predict(signature))

    def forward(self, **inputs: Any) -> Any:
        """Return what the box answers."""
        parts = read_candidate(self).to_json()
        answer = self.box.ask(json_object(inputs), parts)
        outputs = cast("dict[str, Json]", answer.body["outputs"])
        prediction = MeasuredPrediction.measured(outputs, _usage(answer))
        if dspy.settings.trace is not None:
            # Reflective optimizers look in the trace for what each component took part in.
            dspy.settings.trace.extend((predictor, inputs, prediction) for predictor in self.predictors())
        return prediction


def _usage(answer: HttpAnswer) -> Usage:
    """Return the bill; a box may state `usage: {prompt_tokens, completion_tokens, lm_calls, cost_usd}` itself."""
    told = answer.body.get("usage")
    told = told if isinstance(told, dict) else {}

    def number(name: str) -> float:
        value = told.get(name)
        return float(value) if isinstance(value, int | float) and 0 <= value < 1e15 else 0.0

    return Usage(
        cost_usd=number("cost_usd"),
        latency_seconds=answer.seconds,
        prompt_tokens=int(number("prompt_tokens")),
        completion_tokens=int(number("completion_tokens")),
        lm_calls=int(number("lm_calls")),
    )
