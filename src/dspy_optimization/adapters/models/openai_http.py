"""A model behind any OpenAI-compatible `base_url`: vLLM, llama.cpp, Ollama, LM Studio, SGLang, OpenAI itself."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NoReturn
from urllib.parse import urlsplit

import httpx

from dspy_optimization.adapters.models.answer import parsed, response
from dspy_optimization.adapters.models.connections import ConnectionStack
from dspy_optimization.adapters.models.failures import refusal, retry_after_seconds, said, scrub
from dspy_optimization.errors import InvalidRequestError, ModelError
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Price

ANSWER_BYTES = 32 * 1024 * 1024
"""A longer answer is not read to its end."""
LIST_TIMEOUT_SECONDS = 5.0
IDLE_SECONDS = 4.0
"""Idle connections are closed before common servers (uvicorn: 5 s) close them under our feet."""


class OpenAIChat:
    """One model at one place, over pooled keep-alive connections. Thread-safe; never retries, never redirects.

    No message and no representation of it contains the key.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 120.0,
        price: Price | None = None,
        trust_environment: bool = False,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Open nothing yet.

        Args:
            base_url: up to and without `/chat/completions`, as `http://localhost:8000/v1`.
            model: as the server names it.
            api_key: sent as a bearer token; None for servers without keys.
            timeout_seconds: for one whole answer, connecting included.
            price: None: not known.
            trust_environment: take proxies and certificates from the environment variables httpx knows.
            clock: seconds, for latency and timeout.
            now: aware, for `Retry-After` dates.
        Raises:
            InvalidRequestError: an address that is none or carries a key, an empty model, a key no header can carry.
        """
        self._base_url = checked_address(base_url)
        if not model.strip():
            raise InvalidRequestError("model: wanted a name the server knows, found an empty text")
        self._model = model
        self._key = api_key
        self._timeout_seconds = timeout_seconds
        self._price = price
        self._clock = clock
        self._now = now
        self._closed = False
        self._who = f"model {model} at {self._base_url}"
        headers = {"content-type": "application/json", "accept": "application/json"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {checked_key(api_key)}"
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, 15.0)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS),
            # httpx's own pool where proxies are wanted: only it knows them.
            transport=None if trust_environment else ConnectionStack(idle_seconds=IDLE_SECONDS, clock=clock),
            follow_redirects=False,
            trust_env=trust_environment,
        )

    def __repr__(self) -> str:
        return f"OpenAIChat(base_url={self._base_url!r}, model={self._model!r})"

    @property
    def identity(self) -> str:
        """`openai:<model>@<base_url>`."""
        return f"openai:{self._model}@{self._base_url}"

    @property
    def price(self) -> Price | None:
        """None: not known."""
        return self._price

    def complete(self, request: ModelRequest) -> ModelResponse:
        """Return the answer of one attempt, or raise `ModelError`."""
        body = json.dumps({**request.body, "model": self._model}, ensure_ascii=False).encode("utf-8", "replace")
        started = self._clock()
        answer = self._send(body, started)
        if answer.status_code != 200:
            self._refuse(answer)
        payload = parsed(answer.text, who=self._who, secret=self._key)
        if isinstance(payload, dict) and payload.get("error") and not payload.get("choices"):
            self._refuse_inside(payload["error"], answer)
        return response(payload, request, self._clock() - started, who=self._who)

    def _send(self, body: bytes, started: float) -> httpx.Response:
        """Return the whole answer; httpx limits each read, this limits their sum."""
        if self._closed:
            raise ModelError(f"{self._who}: wanted an answer, found the model closed; possible: open it again")
        url = f"{self._base_url}/chat/completions"
        try:
            with self._client.stream("POST", url, content=body) as answer:
                chunks = bytearray()
                for chunk in answer.iter_bytes():
                    chunks += chunk
                    if len(chunks) > ANSWER_BYTES:
                        raise ModelError(
                            f"{self._who}: wanted an answer of at most {ANSWER_BYTES} bytes, found a longer one; "
                            "possible: set max_tokens",
                            retryable=True,
                        )
                    if self._clock() - started > self._timeout_seconds:
                        raise self._too_slow()
                return httpx.Response(
                    answer.status_code, headers=_plain(answer.headers), content=bytes(chunks), request=answer.request
                )
        except httpx.TimeoutException as error:
            raise self._too_slow() from error
        except (httpx.TransportError, httpx.DecodingError, httpx.StreamError) as error:
            kind = type(error).__name__
            raise ModelError(
                f"{self._who}: wanted an answer, found no working connection ({kind}: {scrub(str(error), self._key)}); "
                "possible: start the model server or mend base_url, then resume",
                retryable=True,
            ) from error

    def _too_slow(self) -> ModelError:
        return ModelError(
            f"{self._who}: wanted an answer within {self._timeout_seconds:g} s, found none; "
            "possible: check the model server, raise timeout_seconds or lower max_tokens",
            retryable=True,
        )

    def _refuse(self, answer: httpx.Response) -> NoReturn:
        detail = scrub(said(answer.text), self._key)
        if answer.has_redirect_location:
            detail = f"to {scrub(answer.headers['location'], self._key)[:200]}"
        if answer.status_code == 404:
            detail = f"{detail}; {self._offered()}"
        wait = retry_after_seconds(answer.headers, self._now())
        raise refusal(answer.status_code, detail, who=self._who, retry_after=wait)

    def _refuse_inside(self, error: object, answer: httpx.Response) -> NoReturn:
        """Some gateways send their errors with status 200."""
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code <= 599 else 502
        detail = scrub(said(answer.text), self._key)
        wait = retry_after_seconds(answer.headers, self._now())
        raise refusal(status, detail, who=self._who, retry_after=wait)

    def _offered(self) -> str:
        """Return what the server says it has, for the message about an unknown model."""
        unknown = f"is {self._base_url} right? It usually ends in /v1"
        try:
            answer = self._client.get(f"{self._base_url}/models", timeout=LIST_TIMEOUT_SECONDS)
            data = parsed(answer.text, who=self._who) if answer.status_code == 200 else None
        except (httpx.HTTPError, ModelError):
            return unknown
        models = data.get("data") if isinstance(data, dict) else None
        names = (
            sorted(
                str(entry["id"])
                for entry in models or ()
                if isinstance(entry, dict) and isinstance(entry.get("id"), str)
            )
            if isinstance(models, list)
            else []
        )
        if not names:
            return unknown
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return f"the server lists {', '.join(names[:20])}{more}"

    def close(self) -> None:
        """Close every connection; calls after it fail."""
        self._closed = True
        self._client.close()


def _plain(headers: httpx.Headers) -> list[tuple[str, str]]:
    """Return the headers of a body that is no longer compressed."""
    return [(name, value) for name, value in headers.items() if name not in ("content-encoding", "content-length")]


def checked_address(base_url: str) -> str:
    """Return the address without a slash or `/chat/completions` at its end. Raises `InvalidRequestError`."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable:
        raise InvalidRequestError(
            f"base_url: wanted an address such as http://localhost:8000/v1, found {scrub(base_url)!r}"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidRequestError(
            "base_url: wanted an address without user, password, query and fragment; "
            "possible: name the environment variable that holds the key in api_key_env"
        )
    return base_url.rstrip("/").removesuffix("/chat/completions")


def checked_key(key: str) -> str:
    """Return a key that a header can carry. Raises `InvalidRequestError`, without the key."""
    if not key or not key.isascii() or not key.isprintable() or key != key.strip():
        raise InvalidRequestError(
            "the model key: wanted printable ASCII without spaces around it, found something else "
            "(a line break at its end?); possible: set the environment variable again"
        )
    return key
