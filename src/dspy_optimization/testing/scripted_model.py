"""A language model that answers what it is told, as slowly and as badly as it is told."""

import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from dspy_optimization.agents.candidate import canonical_json, content_hash
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Price
from dspy_optimization.events import Json

Answer: TypeAlias = Callable[[ModelRequest], str]
"""Returns the text of an answer; what it raises is what the model raises."""


def hashed(request: ModelRequest) -> str:
    """Answer every question with a text of its own: the beginning of its hash."""
    return content_hash({"body": dict(request.body), "sample": request.sample})[:12]


class ScriptedModel:
    """A `LanguageModel` without a network. Thread-safe; remembers what it was asked.

    Tokens are counted as one for four bytes, at least one, of question and answer: fewer than any upper bound.
    """

    def __init__(
        self,
        answer: Answer = hashed,
        *,
        identity: str = "scripted",
        price: Price | None = None,
        latency_seconds: float = 0.0,
        slots: int | None = None,
    ) -> None:
        """Prepare a model.

        Args:
            answer: gives the text, or raises `ModelError`, `StopSearch` or whatever a model can raise.
            identity: of the model.
            price: None: not known.
            latency_seconds: of every answer, in real time.
            slots: how many it answers at once, further ones queue; None: as many as ask.
        """
        self.identity = identity
        self.price = price
        self.closed = False
        self.most_in_flight = 0
        self._answer = answer
        self._latency_seconds = latency_seconds
        self._slots = threading.Semaphore(slots) if slots is not None else None
        self._lock = threading.Lock()
        self._in_flight = 0
        self._requests: list[ModelRequest] = []

    @property
    def requests(self) -> tuple[ModelRequest, ...]:
        """What it was asked, in the order of arrival."""
        with self._lock:
            return tuple(self._requests)

    @property
    def in_flight(self) -> int:
        """Questions it is answering now."""
        return self._in_flight

    def complete(self, request: ModelRequest) -> ModelResponse:
        """Answer as scripted."""
        if self._slots is None:
            return self._complete(request)
        with self._slots:
            return self._complete(request)

    def _complete(self, request: ModelRequest) -> ModelResponse:
        with self._lock:
            self._requests.append(request)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            if self._latency_seconds:
                time.sleep(self._latency_seconds)
            text = self._answer(request)
        finally:
            with self._lock:
                self._in_flight -= 1
        return chat_response(
            text,
            prompt_tokens=_tokens(canonical_json(dict(request.body))),
            latency_seconds=self._latency_seconds,
            model=self.identity,
        )

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


def chat_response(
    text: str, *, prompt_tokens: int = 1, latency_seconds: float = 0.0, model: str = "scripted"
) -> ModelResponse:
    """Return a chat completion that says `text`."""
    completion_tokens = _tokens(text)
    return ModelResponse(
        body={
            "object": "chat.completion",
            "model": model,
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}},
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        },
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        latency_seconds=latency_seconds,
    )


def chat_request(text: str, *, sample: str = "", max_tokens: int | None = 16) -> ModelRequest:
    """Return a chat question that says `text`."""
    body: dict[str, Json] = {"messages": [{"role": "user", "content": text}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    return ModelRequest(body=body, sample=sample)


def _tokens(text: str) -> int:
    return max(1, len(text.encode()) // 4)
