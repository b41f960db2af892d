"""Models are opened once a process and lent to each piece of work."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dspy_optimization.adapters.models import EMBEDDED, EmbeddedModel, Models, ModelSpec, price_of
from dspy_optimization.errors import CancelRequested, NotFoundError
from dspy_optimization.evaluation.model import Price, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.testing.model_server import ModelServer, answer, refused
from dspy_optimization.testing.scripted_model import chat_request

QUESTION = chat_request("hello")
FREE = Price(prompt_usd=0, completion_usd=0)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as started:
        yield started


def _local(server: ModelServer, **options: object) -> ModelSpec:
    return ModelSpec(model="fake", base_url=server.base_url, **options)


def test_each_role_has_its_model(server: ModelServer) -> None:
    """And it answers."""
    with ModelServer(answer("judged")) as other:
        roles = {Role.TASK: _local(server), Role.JUDGE: _local(other)}
        with closing(Models(roles)) as models:
            work = models.for_work(time.sleep)
            texts = {
                role: model.complete(QUESTION).body["choices"][0]["message"]["content"] for role, model in work.items()
            }

    assert texts == {Role.TASK: "ok", Role.JUDGE: "judged"}


def test_equal_specs_share_their_limits(server: ModelServer) -> None:
    """Two optimizations on one model of two requests a minute: the third request waits, whoever sends it."""
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if seconds > 0:
            raise CancelRequested("not that long")

    spec = _local(server, requests_per_minute=2)
    with closing(Models({Role.TASK: spec, Role.JUDGE: spec})) as models:
        models.for_work(wait)[Role.TASK].complete(QUESTION)
        models.for_work(wait)[Role.JUDGE].complete(QUESTION)
        with pytest.raises(CancelRequested):
            models.for_work(wait)[Role.TASK].complete(QUESTION)

    assert server.calls == 2
    assert waits[-1] > 0


def test_a_fallback_is_told_of_with_its_role(server: ModelServer) -> None:
    """The work that asked learns it, nobody else."""
    told: list[tuple[Role, str, str, str]] = []
    with ModelServer(refused(401, "no")) as closed_shop:
        spec = _local(closed_shop, price=FREE, fallbacks=(_local(server, price=FREE),))
        with closing(Models({Role.TASK: spec})) as models:
            work = models.for_work(time.sleep, on_fallback=lambda *facts: told.append(facts))
            said = work[Role.TASK].complete(QUESTION)
            models.for_work(time.sleep)[Role.TASK].complete(QUESTION)

    assert said.answered_by == f"openai:fake@{server.base_url}"
    assert [facts[:3] for facts in told] == [
        (Role.TASK, f"openai:fake@{closed_shop.base_url}", f"openai:fake@{server.base_url}")
    ]


def test_named_models_are_found_by_name(server: ModelServer) -> None:
    """Or the names there are are listed."""
    with closing(Models({}, named={"house": _local(server)})) as models:
        said = models.named("house", time.sleep).complete(QUESTION)
        with pytest.raises(NotFoundError, match="wanted 'hose', found house"):
            models.named("hose", time.sleep)

    assert said.prompt_tokens == 10


def test_a_stop_reaches_the_model(server: ModelServer) -> None:
    """Nothing is sent any more."""
    stop = StopSignal()
    stop.stop(CancelRequested("enough"))
    with closing(Models({Role.TASK: _local(server)})) as models, pytest.raises(CancelRequested):
        models.for_work(stop.wait)[Role.TASK].complete(QUESTION)

    assert server.calls == 0


def test_the_embedded_model_is_made_once_and_closed(tmp_path: Path) -> None:
    """Two specs of it are one model; its slots bound what is in flight."""
    made: list[EmbeddedModel] = []
    weights = tmp_path / "w.gguf"
    weights.write_bytes(b"x")

    def make() -> EmbeddedModel:
        made.append(EmbeddedModel(weights=weights, slots=3))
        return made[-1]

    roles = {Role.TASK: ModelSpec(model=EMBEDDED), Role.JUDGE: ModelSpec(model=EMBEDDED, max_attempts=1)}
    models = Models(roles, embedded=make)
    work = models.for_work(time.sleep)
    limits = [work[role]._admission.limit for role in roles]
    models.close()

    assert (len(made), limits) == (1, [3, 3])
    assert work[Role.TASK].identity == work[Role.JUDGE].identity == made[0].identity
    assert work[Role.TASK].price == FREE


def test_a_litellm_string_opens_with_the_price_of_the_table() -> None:
    """Nothing is imported for that."""
    roles = {
        Role.TASK: ModelSpec(model="openai/gpt-4o-mini"),
        Role.JUDGE: ModelSpec(model="openai/gpt-4o-mini", price=FREE),
        Role.REFLECTION: ModelSpec(model="openai/unheard-of"),
    }
    with closing(Models(roles)) as models:
        prices = {role: model.price for role, model in models.for_work(time.sleep).items()}

    assert prices == {
        Role.TASK: Price(prompt_usd=0.15, completion_usd=0.6),
        Role.JUDGE: FREE,
        Role.REFLECTION: None,
    }


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (ModelSpec(model=EMBEDDED), FREE),
        (ModelSpec(model="m", base_url="http://127.0.0.1:1/v1"), None),
        (ModelSpec(model="m", base_url="http://127.0.0.1:1/v1", price=FREE), FREE),
        (ModelSpec(model="openai/gpt-4o-mini"), Price(prompt_usd=0.15, completion_usd=0.6)),
        (ModelSpec(model="openai/unheard-of"), None),
    ],
)
def test_the_price_is_known_before_anything_is_opened(spec: ModelSpec, expected: Price | None) -> None:
    """Stated, else free for the embedded one, else by the table; a server of one's own is unknown, not free."""
    assert price_of(spec) == expected


def test_a_spec_does_not_show_its_key() -> None:
    """Specs end up in logs."""
    assert "canary" not in repr(ModelSpec(model="m", api_key="sk-canary-12345678"))
