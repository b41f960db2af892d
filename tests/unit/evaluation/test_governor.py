"""A model that is asked politely and persistently: retries, limits, fallbacks, in virtual time and for real."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.adapters.models.openai_http import OpenAIChat
from dspy_optimization.errors import (
    CancelRequested,
    ModelAuthError,
    ModelBusyError,
    ModelError,
    ModelRequestError,
)
from dspy_optimization.evaluation.admission import Admission, AdmissionLimits
from dspy_optimization.evaluation.governor import GovernedModel, OnFallback
from dspy_optimization.evaluation.model import LanguageModel, ModelRequest, Price
from dspy_optimization.evaluation.retry import RetryPolicy
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.testing.fixed_clock import FixedClock
from dspy_optimization.testing.model_server import (
    ModelServer,
    answer,
    garbage,
    hang_up,
    server_error,
    silence,
    too_many_requests,
)
from dspy_optimization.testing.scripted_model import ScriptedModel, chat_request

DOWN = ModelError("the server is down", retryable=True)
BUSY = ModelBusyError("slow down")


def scripted(*outcomes: ModelError | str, identity: str = "wanted", price: Price | None = None) -> ScriptedModel:
    """A model that gives these outcomes in turn and the last one for ever."""
    left = list(outcomes)

    def next_outcome(_request: ModelRequest) -> str:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, ModelError):
            raise outcome
        return outcome

    return ScriptedModel(next_outcome, identity=identity, price=price)


def governed(
    model: LanguageModel,
    clock: FixedClock,
    *,
    limits: AdmissionLimits | None = None,
    retry: RetryPolicy | None = None,
    fallbacks: Sequence[LanguageModel] = (),
    wait: Callable[[float], None] | None = None,
    on_fallback: OnFallback = lambda _wanted, _used, _reason: None,
) -> GovernedModel:
    """The model in virtual time."""
    return GovernedModel(
        model,
        Admission(limits or AdmissionLimits(), clock=clock.seconds),
        wait=wait or clock.sleep,
        clock=clock.seconds,
        rng=random.Random(7),
        retry=retry,
        fallbacks=fallbacks,
        on_fallback=on_fallback,
    )


def text_of(model: LanguageModel) -> str:
    """What it says to hello."""
    return model.complete(chat_request("hello")).body["choices"][0]["message"]["content"]


def test_a_passing_failure_is_tried_again() -> None:
    """Four failures, then the answer; the pauses grow within their ceilings."""
    clock, model = FixedClock(), scripted(DOWN, DOWN, DOWN, DOWN, "here")

    assert text_of(governed(model, clock)) == "here"
    pauses = [pause for pause in clock.slept if pause > 0]
    assert all(pause <= ceiling for pause, ceiling in zip(pauses, [0.5, 1.0, 2.0, 4.0], strict=True))


def test_after_the_last_attempt_the_error_says_what_was_tried() -> None:
    """And keeps its class and whether trying again may help."""
    model = scripted(DOWN)

    with pytest.raises(ModelError, match=r"the server is down; given up after 3 attempt.*attempt 3 of 3") as caught:
        governed(model, FixedClock(), retry=RetryPolicy(max_attempts=3)).complete(chat_request("hello"))
    assert caught.value.retryable is True
    assert len(model.requests) == 3


@pytest.mark.parametrize("error", [ModelAuthError("no key"), ModelRequestError("too long"), ModelError("closed")])
def test_what_cannot_be_mended_is_not_tried_again(error: ModelError) -> None:
    """One attempt, the very error."""
    model = scripted(error)

    with pytest.raises(type(error)) as caught:
        governed(model, FixedClock()).complete(chat_request("hello"))
    assert caught.value is error
    assert len(model.requests) == 1


def test_a_busy_server_is_waited_for_beyond_the_attempts() -> None:
    """Twenty refusals are no failure: they end by themselves."""
    clock, model = FixedClock(), scripted(*[BUSY] * 20, "here")

    assert text_of(governed(model, clock, retry=RetryPolicy(deadline_seconds=1000.0))) == "here"


def test_a_server_that_stays_busy_meets_the_deadline() -> None:
    """The error is still that of a busy server, and no attempt started after the deadline."""
    clock, model = FixedClock(), scripted(BUSY)

    with pytest.raises(ModelBusyError, match="the deadline is 300 s"):
        governed(model, clock).complete(chat_request("hello"))
    assert clock.seconds() <= 300.0


@given(asked=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=6))
def test_retry_after_is_honoured(asked: list[float]) -> None:
    """Between a refusal and the next attempt lie at least the seconds the server asked for."""
    clock, moments = FixedClock(), []
    outcomes: list[ModelError | str] = [ModelBusyError("slow", retry_after_seconds=seconds) for seconds in asked]
    inner = scripted(*outcomes, "here")

    class Watched:
        identity, price = "wanted", None

        def complete(self, request: ModelRequest) -> object:
            moments.append(clock.seconds())
            return inner.complete(request)

    governed(Watched(), clock, retry=RetryPolicy(deadline_seconds=10_000.0)).complete(chat_request("hello"))

    assert all(
        later - sooner >= seconds - 1e-6
        for sooner, later, seconds in zip(moments[:-1], moments[1:], asked, strict=True)
    )


def test_a_wait_beyond_the_deadline_is_not_waited() -> None:
    """The server asks for ten minutes, the call has five: it fails now."""
    clock = FixedClock()
    model = scripted(ModelBusyError("slow", retry_after_seconds=600.0))

    with pytest.raises(ModelBusyError, match="next attempt would start in 600"):
        governed(model, clock).complete(chat_request("hello"))
    assert clock.seconds() == 0.0


def test_a_stop_ends_the_pause_between_attempts() -> None:
    """Within one call: no further attempt."""
    stop, model = StopSignal(), scripted(DOWN)

    def wait(seconds: float) -> None:
        if seconds > 0:
            stop.stop(CancelRequested("enough"))
        stop.wait(0.0)

    with pytest.raises(CancelRequested):
        governed(model, FixedClock(), wait=wait).complete(chat_request("hello"))
    assert len(model.requests) == 1


def test_a_stop_inside_the_model_frees_its_slot() -> None:
    """Nothing is lost to a call that ended by force."""
    admission = Admission(AdmissionLimits(max_concurrency=1), clock=time.monotonic)

    def stopping(_request: ModelRequest) -> str:
        raise CancelRequested("enough")

    model = GovernedModel(
        ScriptedModel(stopping), admission, wait=time.sleep, clock=time.monotonic, rng=random.Random(1)
    )
    with pytest.raises(CancelRequested):
        model.complete(chat_request("hello"))

    assert admission.in_flight == 0


class TestFallbacks:
    """Other models answer when the wanted one fails for good."""

    def test_the_next_one_answers_and_is_told_of(self) -> None:
        """The first fallback fails too; the answer says who gave it and what it cost there."""
        told: list[tuple[str, str, str]] = []
        second = scripted(ModelAuthError("no credit"), identity="second")
        third = scripted("here", identity="third", price=Price(prompt_usd=1e6, completion_usd=2e6))
        model = governed(
            scripted(ModelAuthError("no key"), price=Price(prompt_usd=0, completion_usd=0)),
            FixedClock(),
            fallbacks=[second, third],
            on_fallback=lambda *facts: told.append(facts),
        )
        answer = model.complete(chat_request("hello"))

        assert (answer.answered_by, answer.cost_usd) == ("third", answer.prompt_tokens + 2.0 * answer.completion_tokens)
        assert told == [("wanted", "third", "no key")]
        assert model.identity == "wanted"

    def test_a_request_nobody_can_answer_is_not_passed_on(self) -> None:
        """The request is at fault, not the model."""
        other = scripted("here", identity="other")

        with pytest.raises(ModelRequestError):
            governed(scripted(ModelRequestError("too long")), FixedClock(), fallbacks=[other]).complete(
                chat_request("hello")
            )
        assert other.requests == ()

    def test_a_model_that_failed_rests_for_a_minute(self) -> None:
        """Nobody waits through its retries again before that."""
        clock = FixedClock()
        wanted, other = scripted(ModelAuthError("no key")), scripted("here", identity="other")
        model = governed(wanted, clock, fallbacks=[other])
        texts = [text_of(model) for _ in range(3)]
        resting = len(wanted.requests)
        clock.sleep(60.0)
        text_of(model)

        assert (["here"] * 3, 1, 2) == (texts, resting, len(wanted.requests))

    def test_a_resting_model_is_asked_when_nobody_else_can(self) -> None:
        """It may be back."""
        model = governed(
            scripted(ModelAuthError("no key"), "back"),
            FixedClock(),
            fallbacks=[scripted("here", ModelAuthError("gone"), identity="other")],
        )

        assert ["here", "back"] == [text_of(model), text_of(model)]

    def test_when_all_fail_the_error_names_all(self) -> None:
        """And says whether trying again may help."""
        model = governed(scripted(ModelAuthError("no key")), FixedClock(), fallbacks=[scripted(DOWN, identity="other")])

        with pytest.raises(ModelError, match=r"1 fallback\(s\) failed: no key \| the server is down") as caught:
            model.complete(chat_request("hello"))
        assert caught.value.retryable is True

    def test_a_fallback_of_a_fallback_is_named(self) -> None:
        """Who really answered, at its price."""
        deepest = scripted("here", identity="deepest", price=Price(prompt_usd=0, completion_usd=3e6))
        middle = governed(scripted(ModelAuthError("b"), identity="middle"), FixedClock(), fallbacks=[deepest])
        top = governed(scripted(ModelAuthError("a")), FixedClock(), fallbacks=[middle])
        answer = top.complete(chat_request("hello"))

        assert ("deepest", 3.0 * answer.completion_tokens) == (answer.answered_by, answer.cost_usd)

    @pytest.mark.parametrize(
        ("prices", "expected"),
        [
            ([(1, 5), (2, 3)], Price(prompt_usd=2, completion_usd=5)),
            ([(1, 5), None], None),
            ([None], None),
            ([(0, 0)], Price(prompt_usd=0, completion_usd=0)),
        ],
    )
    def test_the_price_holds_whoever_answers(
        self, prices: list[tuple[float, float] | None], expected: Price | None
    ) -> None:
        """A reservation must not be too small because a dearer model stepped in."""
        models = [
            scripted("x", price=None if price is None else Price(prompt_usd=price[0], completion_usd=price[1]))
            for price in prices
        ]

        assert governed(models[0], FixedClock(), fallbacks=models[1:]).price == expected


def test_closing_a_view_leaves_the_model_open() -> None:
    """Other work may be asking it."""
    model = scripted("here")
    governed(model, FixedClock()).close()

    assert model.closed is False


class TestAgainstARealServer:
    """The same over real connections, in real time."""

    @contextmanager
    def _governed(self, server: ModelServer, limits: AdmissionLimits, **values: float) -> Iterator[GovernedModel]:
        with closing(OpenAIChat(server.base_url, "fake", timeout_seconds=1.0)) as client:
            yield GovernedModel(
                client,
                Admission(limits, clock=time.monotonic),
                wait=time.sleep,
                clock=time.monotonic,
                rng=random.Random(3),
                retry=RetryPolicy(base_seconds=0.01, cap_seconds=0.05, max_attempts=8, **values),
            )

    def test_it_gets_through_everything_that_passes(self) -> None:
        """429 with and without Retry-After, 500, garbage, a dropped connection, and silence: each once."""
        script = [
            too_many_requests("0.1"),
            too_many_requests(),
            server_error(),
            garbage(),
            hang_up(),
            silence(),
        ]
        with ModelServer(answer("here"), script=script) as server, self._governed(server, AdmissionLimits()) as model:
            said = text_of(model)
            waited = server.requests[1].at - server.requests[0].at

        assert ("here", 7) == (said, server.calls)
        assert waited >= 0.1

    def test_a_server_that_takes_five_at_once_answers_all(self) -> None:
        """Forty threads, capacity five: every call is answered, and the refusals stay few."""
        with ModelServer(answer("here").after(0.01), capacity=5) as server:
            limits = AdmissionLimits(max_concurrency=40)
            with self._governed(server, limits, deadline_seconds=20.0) as model, ThreadPoolExecutor(40) as pool:
                said = list(pool.map(lambda _: text_of(model), range(300)))

        assert said == ["here"] * 300
        assert server.max_in_flight <= 5
        assert server.refusals < 150

    def test_never_more_than_allowed_at_once(self) -> None:
        """Counted by the server."""
        with (
            ModelServer(answer("here").after(0.005)) as server,
            self._governed(server, AdmissionLimits(max_concurrency=3)) as model,
        ):
            threads = [threading.Thread(target=text_of, args=(model,)) for _ in range(24)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        assert (24, 3) == (server.calls, server.max_in_flight)
