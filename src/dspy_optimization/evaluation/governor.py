"""A model that is asked politely and persistently: limits, retries, fallbacks."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from dspy_optimization.errors import ModelBusyError, ModelError, ModelRequestError
from dspy_optimization.evaluation.admission import Admission
from dspy_optimization.evaluation.model import LanguageModel, ModelRequest, ModelResponse, Price
from dspy_optimization.evaluation.retry import RetryPolicy
from dspy_optimization.evaluation.token_estimate import request_tokens

REST_SECONDS = 60.0
"""So long calls go straight to the fallback after the model failed for good."""

OnFallback: TypeAlias = Callable[[str, str, str], None]
"""Is told the identity that was wanted, the one that answers instead, and why."""


def _tell_nobody(wanted: str, used: str, reason: str) -> None:
    """No fallback, nobody to tell."""


class GovernedModel:
    """A model within its limits, tried again when that may help, replaced when it may not. Thread-safe.

    A light view on one model for one piece of work: `Admission` is shared by all of them in a process,
    `wait` and `on_fallback` are this work's own. Within the limits of other processes it is not.
    """

    def __init__(
        self,
        model: LanguageModel,
        admission: Admission,
        *,
        wait: Callable[[float], None],
        clock: Callable[[], float],
        rng: random.Random,
        retry: RetryPolicy | None = None,
        fallbacks: Sequence[LanguageModel] = (),
        on_fallback: OnFallback = _tell_nobody,
    ) -> None:
        """Ask nothing yet.

        Args:
            model: makes one attempt a call.
            admission: of that model, shared with whoever else asks it.
            wait: sleeps so many seconds, or raises what ends the work (`StopSignal.wait`).
            clock: monotonic seconds, the one of `admission`.
            rng: for the jitter alone; answers do not depend on it.
            retry: None: the defaults.
            fallbacks: asked in order when the model fails for good, each with limits of its own.
            on_fallback: told for every call that another model answers; must not fail.
        """
        self._model = model
        self._admission = admission
        self._wait = wait
        self._clock = clock
        self._rng = rng
        self._retry = RetryPolicy() if retry is None else retry
        self._fallbacks = tuple(fallbacks)
        self._on_fallback = on_fallback

    @property
    def identity(self) -> str:
        """The identity of the wanted model: a fallback's answer is kept as the answer of this one."""
        return self._model.identity

    @property
    def price(self) -> Price | None:
        """The highest of model and fallbacks, so that a reservation holds whoever answers; None: one is unknown."""
        prices = [model.price for model in (self._model, *self._fallbacks)]
        known = [price for price in prices if price is not None]
        if len(known) < len(prices):
            return None
        return Price(
            prompt_usd=max(price.prompt_usd for price in known),
            completion_usd=max(price.completion_usd for price in known),
        )

    def complete(self, request: ModelRequest) -> ModelResponse:
        """Return an answer, from a fallback when it has to be; its cost is that of whoever answered.

        Raises:
            ModelRequestError: the model refuses this very request; no fallback is asked.
            ModelError: model and fallbacks failed for good.
        """
        self._wait(0.0)
        if self._fallbacks and self._admission.resting:
            known = ModelError(f"{self.identity}: failed for good less than {REST_SECONDS:g} s ago", retryable=True)
            try:
                return self._fall_back(request, known)
            except ModelError:
                # Nobody else can answer: the model may be back already.
                return self._priced(self._persist(request), self._model)
        try:
            return self._priced(self._persist(request), self._model)
        except ModelRequestError:
            raise
        except ModelError as error:
            if not self._fallbacks:
                raise
            self._admission.rest(REST_SECONDS)
            return self._fall_back(request, error)

    def _persist(self, request: ModelRequest) -> ModelResponse:
        """Return the model's own answer, after as many attempts as the policy allows."""
        tokens = request_tokens(request)
        attempt, failures, first_started = 0, 0, None
        while True:
            granted = self._admission.enter(tokens, self._wait, again=attempt > 0)
            first_started = granted.started_at if first_started is None else first_started
            attempt += 1
            try:
                answer = self._model.complete(request)
            except ModelBusyError as error:
                self._admission.refused(granted, error.retry_after_seconds)
                latest: ModelError = error
            except ModelError as error:
                self._admission.failed()
                latest = error
                failures += 1
            except BaseException:
                self._admission.failed()
                raise
            else:
                self._admission.answered(granted, answer.prompt_tokens + answer.completion_tokens)
                return answer
            pause = self._retry.pause_seconds(attempt, latest.retry_after_seconds, self._rng.random())
            elapsed = self._clock() - first_started
            reason = self._retry.verdict(latest, failures=failures, elapsed_seconds=elapsed, pause_seconds=pause)
            if reason is not None:
                raise _given_up(latest, attempt, reason) from latest
            self._wait(pause)

    def _fall_back(self, request: ModelRequest, failure: ModelError) -> ModelResponse:
        errors = [failure]
        for model in self._fallbacks:
            self._wait(0.0)
            try:
                answer = model.complete(request)
            except ModelError as error:
                errors.append(error)
                continue
            answer = self._priced(answer, model)
            self._on_fallback(self.identity, str(answer.answered_by), str(failure))
            return answer
        raise ModelError(
            f"{self.identity} and its {len(self._fallbacks)} fallback(s) failed: " + " | ".join(map(str, errors)),
            retryable=any(error.retryable for error in errors),
            retry_after_seconds=failure.retry_after_seconds,
        ) from failure

    def _priced(self, answer: ModelResponse, model: LanguageModel) -> ModelResponse:
        """Return the answer with who gave it, when it was a fallback, and what it cost there."""
        by, cost, price = answer.answered_by, answer.cost_usd, model.price
        if cost is None and price is not None:
            cost = price.cost_usd(answer.prompt_tokens, answer.completion_tokens)
        if by is None and model is not self._model:
            by = model.identity
        return replace(answer, answered_by=by, cost_usd=cost)

    def close(self) -> None:
        """Free nothing: the model belongs to whoever opened it, other work may be asking it."""


def _given_up(error: ModelError, attempts: int, reason: str) -> ModelError:
    """Return the error of the last attempt, of the same class, with what was tried."""
    if attempts == 1 and not error.retryable:
        return error
    message = f"{error}; given up after {attempts} attempt(s): {reason}"
    if isinstance(error, ModelBusyError):
        return ModelBusyError(message, retry_after_seconds=error.retry_after_seconds)
    return type(error)(message, retryable=error.retryable, retry_after_seconds=error.retry_after_seconds)
