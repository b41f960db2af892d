"""What the environment and the configuration file say, and what is wrong with them."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dspy_optimization.adapters.models import EMBEDDED, ModelSpec
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.model import Price, Role
from dspy_optimization.settings import (
    ServiceSettings,
    Settings,
    default_data_directory,
    read_settings,
    settings_from_json,
    settings_to_json,
)
from dspy_optimization.settings.config_file import ConfigFile, read_document
from dspy_optimization.settings.problems import sentences

NAMES = ("DATABASE_URL", "DSPY_OPT_DATA_DIR", "DSPY_CONFIG_PATH", "MLFLOW_TRACKING_URI")
OF_THE_SERVICE = (
    "OPTIMIZATION_QUEUE_SIZE",
    "MAX_CONCURRENT_OPTIMIZATIONS",
    "MAX_CONCURRENT_PER_WORKER",
    "DSPY_OPT_REQUIRE_KEYS",
    "DSPY_OPT_RETENTION_DAYS",
    "DSPY_OPT_ALLOWED_HOSTS",
)
EMBEDDED_SPEC = ModelSpec(model=EMBEDDED)

ReadFile = Callable[[str], Settings]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    others = ("STATISTICAL_SIGNIFICANCE_THRESHOLD", "DSPY_OPT_SECRET_KEY", "GPU_MEMORY_FRACTION")
    for name in (*NAMES, *OF_THE_SERVICE, *others):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReadFile:
    """Read the settings with this configuration file."""

    def reading(text: str) -> Settings:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("DSPY_CONFIG_PATH", str(path))
        return read_settings()

    return reading


def test_without_anything_everything_is_local() -> None:
    """The first command needs no key, no server and no file."""
    settings = read_settings()

    assert settings == Settings(
        database_url=None,
        data_directory=default_data_directory(),
        config_path=None,
        mlflow_tracking_uri=None,
        significance_threshold=0.05,
        models=dict.fromkeys(Role, EMBEDDED_SPEC),
        named_models={},
        allow=settings.allow,
    )
    assert settings.allow.tools == settings.allow.http_hosts == frozenset()


def test_the_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable; passwords do not show."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:canary@h/d")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://u:canary@mlflow.example.org")
    monkeypatch.setenv("STATISTICAL_SIGNIFICANCE_THRESHOLD", "0.01")
    monkeypatch.setenv("GPU_MEMORY_FRACTION", "1")
    monkeypatch.setenv("DSPY_OPT_DATA_DIR", str(tmp_path / "data"))
    settings = read_settings()

    assert settings.database_url == "postgresql://u:canary@h/d"
    assert settings.mlflow_tracking_uri == "https://u:canary@mlflow.example.org"
    assert (settings.significance_threshold, settings.data_directory) == (0.01, tmp_path / "data")
    assert settings.gpu_memory_fraction == 1.0
    assert "canary" not in repr(settings)


def test_the_service_is_careful_until_it_is_told_otherwise() -> None:
    """As the module's docstring says: a hundred wait, ten run, this machine is answered, all is shown for ever."""
    assert read_settings().service == ServiceSettings(
        queue_size=100,
        max_concurrent=10,
        max_concurrent_per_worker=None,
        require_keys=False,
        retention_days=None,
        allowed_hosts=("localhost", "127.0.0.1", "[::1]"),
    )


def test_the_service_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable; names are trimmed and empty ones dropped."""
    values = ("7", "3", "2", "yes", "0.5", " a.example.org , ,b.example.org,")
    for name, value in zip(OF_THE_SERVICE, values, strict=True):
        monkeypatch.setenv(name, value)

    assert read_settings().service == ServiceSettings(
        queue_size=7,
        max_concurrent=3,
        max_concurrent_per_worker=2,
        require_keys=True,
        retention_days=0.5,
        allowed_hosts=("a.example.org", "b.example.org"),
    )


def test_the_key_for_secrets_is_read_and_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Base64 of 32 bytes, as openssl prints it; nowhere in what is logged of settings."""
    key = base64.b64encode(b"canary" * 5 + b"!!").decode()
    monkeypatch.setenv("DSPY_OPT_SECRET_KEY", f"{key}\n")
    settings = read_settings()

    assert key == (settings.service.secret_key or "").strip()
    assert key not in repr(settings)


def test_the_service_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose files do it."""
    for name in OF_THE_SERVICE:
        monkeypatch.setenv(name, "")

    assert read_settings().service == ServiceSettings()


def test_a_variable_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose files do it."""
    for name in NAMES:
        monkeypatch.setenv(name, "")

    assert read_settings().database_url is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DATABASE_URL", "mysql://u:canary@h/d", "found mysql://…"),
        ("DATABASE_URL", "canary", "found something without ://"),
        ("DATABASE_URL", "http://[canary", "found something without ://"),
        ("MLFLOW_TRACKING_URI", "canary.example.org", "wanted an address such as http://mlflow.example.org:5000"),
        ("STATISTICAL_SIGNIFICANCE_THRESHOLD", "five", "wanted a valid number, found 'five'"),
        ("STATISTICAL_SIGNIFICANCE_THRESHOLD", "0", "wanted a number greater than 0, found '0'"),
        ("STATISTICAL_SIGNIFICANCE_THRESHOLD", "0.5", "wanted a number less than 0.5, found '0.5'"),
        ("STATISTICAL_SIGNIFICANCE_THRESHOLD", "nan", "wanted a finite number, found 'nan'"),
        ("GPU_MEMORY_FRACTION", "0", "wanted a number greater than 0, found '0'"),
        ("GPU_MEMORY_FRACTION", "1.01", "wanted a number less than or equal to 1, found '1.01'"),
        ("GPU_MEMORY_FRACTION", "most", "wanted a valid number, found 'most'"),
        ("GPU_MEMORY_FRACTION", "nan", "wanted a finite number, found 'nan'"),
        ("DSPY_OPT_DATA_DIR", "/root/data", "wanted a directory the database's own user can reach"),
        ("DSPY_OPT_DATA_DIR", __file__, "wanted a directory, found a file at"),
        ("OPTIMIZATION_QUEUE_SIZE", "0", "found '0'"),
        ("OPTIMIZATION_QUEUE_SIZE", "many", "found 'many'"),
        ("OPTIMIZATION_QUEUE_SIZE", "1000001", "found '1000001'"),
        ("MAX_CONCURRENT_OPTIMIZATIONS", "0", "found '0'"),
        ("MAX_CONCURRENT_OPTIMIZATIONS", "1.5", "found '1.5'"),
        ("MAX_CONCURRENT_PER_WORKER", "0", "found '0'"),
        ("MAX_CONCURRENT_PER_WORKER", "any", "found 'any'"),
        ("MAX_CONCURRENT_PER_WORKER", "11", "wanted at most MAX_CONCURRENT_OPTIMIZATIONS, which is 10, found 11"),
        ("DSPY_OPT_REQUIRE_KEYS", "maybe", "wanted a valid boolean"),
        ("DSPY_OPT_RETENTION_DAYS", "0", "found '0'"),
        ("DSPY_OPT_RETENTION_DAYS", "inf", "found 'inf'"),
        ("DSPY_OPT_ALLOWED_HOSTS", " , ", "wanted at least one name"),
        ("DSPY_OPT_SECRET_KEY", "canary", "wanted 32 bytes as base64"),
        ("DSPY_OPT_SECRET_KEY", "Y2FuYXJ5", "wanted 32 bytes as base64"),
        ("DSPY_CONFIG_PATH", "/nowhere/config.yaml", "wanted a YAML file, found at /nowhere/config.yaml: No such file"),
    ],
)
def test_a_wrong_variable_stops_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    """With its name, what was wanted and what was found; what may be a secret is not repeated."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidRequestError) as caught:
        read_settings()

    assert str(caught.value).startswith(f"the settings have 1 problem:\n  - {name}: wanted")
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)


def test_databricks_is_a_place_to_track(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow knows it by its bare name."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")

    assert read_settings().mlflow_tracking_uri == "databricks"


def test_models_are_resolved(read: ReadFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strings, blocks, names, keys from the environment, prices, limits, fallbacks."""
    monkeypatch.setenv("HOUSE_KEY", " sk-canary-house \n")
    settings = read(
        """
        models:
          task: embedded
          reflection:
            model: openai/gpt-4o-mini
            requests_per_minute: 500
            tokens_per_minute: 90000
            max_attempts: 2
            fallbacks: [house, anthropic/claude-sonnet-4-6]
          judge: house
        named_models:
          house:
            model: {base_url: "http://10.0.0.5:8000/v1/", model: qwen3-8b}
            api_key_env: HOUSE_KEY
            price: {prompt_usd_per_million: 0, completion_usd_per_million: 0.5}
            max_concurrency: 32
            timeout_seconds: 30
        allow:
          tools: ["my_tools:search"]
          metrics: ["my_metrics:*"]
          http_hosts: [agents.example.org, "*.example.org", "10.0.0.5:80", "*"]
        """
    )
    house = ModelSpec(
        model="qwen3-8b",
        base_url="http://10.0.0.5:8000/v1",
        api_key="sk-canary-house",
        price=Price(prompt_usd=0, completion_usd=0.5),
        max_concurrency=32,
        timeout_seconds=30,
    )

    assert settings.models == {
        Role.TASK: EMBEDDED_SPEC,
        Role.REFLECTION: ModelSpec(
            model="openai/gpt-4o-mini",
            requests_per_minute=500,
            tokens_per_minute=90000,
            max_attempts=2,
            fallbacks=(house, ModelSpec(model="anthropic/claude-sonnet-4-6")),
        ),
        Role.JUDGE: house,
    }
    assert settings.named_models == {"house": house}
    assert settings.allow.tools == {"my_tools:search"}
    assert settings.allow.metrics == {"my_metrics:*"}
    assert len(settings.allow.http_hosts) == 4
    assert "canary" not in repr(settings)


def test_algorithms_may_be_bounded(read: ReadFile) -> None:
    """So many at once; others know no bound."""
    assert {"gepa": 2, "miprov2": 1} == read(
        "service: {algorithm_limits: {gepa: 2, miprov2: 1}}"
    ).service.algorithm_limits


def test_settings_reach_a_child_process_as_they_are(read: ReadFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, prices, fallbacks, lists and paths, through JSON."""
    monkeypatch.setenv("SOME_KEY", "sk-canary-1")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:canary@h/d")
    settings = read(
        "models:\n"
        "  task: {model: a/b, api_key_env: SOME_KEY, timeout_seconds: 7.5, fallbacks: [house],"
        " price: {prompt_usd_per_million: 1, completion_usd_per_million: 2}}\n"
        "named_models: {house: {model: {base_url: 'http://h:1/v1', model: q}, max_concurrency: 3}}\n"
        "allow: {tools: ['a:b'], metrics: ['c:*'], http_hosts: ['*.d']}\n"
        "service: {algorithm_limits: {gepa: 2}}\n"
    )
    through = json.dumps(settings_to_json(settings))

    assert settings == settings_from_json(json.loads(through))
    assert "sk-canary-1" in through


def test_a_role_that_is_not_named_is_answered_by_the_task_model(read: ReadFile) -> None:
    """Whoever pays for a good model wants it to reflect too."""
    settings = read("models: {task: openai/gpt-4o-mini}")

    assert settings.models == dict.fromkeys(Role, ModelSpec(model="openai/gpt-4o-mini"))


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "models:\nallow:\nnamed_models:\n"])
def test_an_empty_file_changes_nothing(read: ReadFile, text: str) -> None:
    """Nor do empty sections."""
    assert read(text).models == dict.fromkeys(Role, EMBEDDED_SPEC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {}", "model: unknown key; did you mean models? Known: models, named_models, allow, service"),
        ("xyz: 1", "xyz: unknown key; known: models, named_models, allow, service"),
        ("models: {refection: x}", "models.refection: unknown key; did you mean reflection?"),
        ("models: 7", "models: wanted a block of keys (task, reflection, judge), found 7"),
        ("models: {task: 7}", "models.task: wanted a block of keys (model, api_key_env, price"),
        ("[1]", "the file: wanted a block of keys (models, named_models, allow, service), found [1]"),
        ("models: {task: embeded}", "wanted embedded, a named model (none so far), a LiteLLM string such as"),
        ("models: {task: {model: }}", "models.task.model: wanted"),
        ("models: {task: {}}", "models.task.model: wanted a value, found none"),
        ("models: {task: {model: ''}}", "models.task.model: wanted"),
        ("models: {task: {model: {model: x}}}", "models.task.model: wanted embedded, a named model"),
        ("models: {task: {model: {model: x, base_url: 'x:1'}}}", "models.task.model.base_url: wanted an address"),
        (
            "models: {task: {model: {model: x, base_url: 'http://u:canary@h/v1'}}}",
            "base_url: wanted an address without user",
        ),
        ("models: {task: {model: a/b, requests_per_minute: 0}}", "wanted a number greater than or equal to 1, found 0"),
        ("models: {task: {model: a/b, requests_per_minute: true}}", "wanted a valid integer, found True"),
        ("models: {task: {model: a/b, tokens_per_minute: 1.5}}", "tokens_per_minute: wanted a valid integer"),
        ("models: {task: {model: a/b, timeout_seconds: .inf}}", "timeout_seconds: wanted a finite number"),
        ("models: {task: {model: a/b, timeout_seconds: '5'}}", "timeout_seconds: wanted a valid number, found '5'"),
        ("models: {task: {model: a/b, price: 3}}", "price: wanted a block of keys (prompt_usd_per_million,"),
        ("models: {task: {model: a/b, price: {prompt_usd_per_million: 1}}}", "completion_usd_per_million: wanted a"),
        ("models: {task: {model: a/b, fallbacks: c/d}}", "fallbacks: wanted a list, found 'c/d'"),
        (
            "models: {task: {model: a/b, fallbacks: [{modle: x}]}}",
            "fallbacks[0].modle: unknown key; did you mean model",
        ),
        ("models: {task: {model: a/b, api_key: sk-canary-1}}", "api_key: a key does not belong into a file"),
        ("models: {task: {model: a/b, api_key_env: sk-canary-1}}", "wanted the name of an environment variable"),
        ("models: {task: {model: a/b, api_key_env: 7}}", "api_key_env: wanted a valid string, found 7"),
        ("models: {task: {model: a/b, api_key_env: NO_SUCH_KEY}}", "variable NO_SUCH_KEY, found it not set"),
        ("models: {task: {model: a/b, api_key_env: BAD_KEY}}", "BAD_KEY: the model key: wanted printable ASCII"),
        ("models: {task: {model: embedded, timeout_seconds: 5.0}}", "costs nothing; found timeout_seconds"),
        ("named_models: {embedded: a/b}", "named_models.embedded: wanted a name of its own"),
        ("named_models: {x/y: a/b}", "wanted a name of its own without a slash, found 'x/y'"),
        ("named_models: {x: {model: a/b, zzz: 1}}", "named_models.x.zzz: unknown key"),
        ("{models: {task: {model: x, max_attempts: 3}}, named_models: {x: a/b}}", "found also max_attempts"),
        ("named_models: {x: {model: a/b, fallbacks: [y]}, y: {model: c/d, fallbacks: [x]}}", "found x → y → x"),
        ("allow: {tools: [os.system]}", "allow.tools: wanted my_package.my_module:function or"),
        ("allow: {http_hosts: ['http://x']}", "allow.http_hosts: wanted a host such as"),
        ("allow: {tools: search}", "allow.tools: wanted a list, found 'search'"),
        (
            "service: {algorithm_limits: {gpa: 2}}",
            "wanted an algorithm, found 'gpa' (did you mean \"gepa\"?)",
        ),
        ("service: {algorithm_limits: {gepa: 0}}", "algorithm_limits.gepa: wanted a number greater than or equal to 1"),
        ("service: {algorithm_limits: {gepa: many}}", "algorithm_limits.gepa: wanted a valid integer, found 'many'"),
        ("service: {algorithm_limits: 3}", "service.algorithm_limits: wanted a block of keys, found 3"),
        ("service: {queue_size: 3}", "service.queue_size: unknown key; known: algorithm_limits"),
        ("models: {task: a/b}\nmodels: {}", "found at line 2, column 1: the key 'models' stands twice"),
        ("models: [", "wanted YAML, found at line 1"),
        ("a: \x07", "wanted YAML, found something else"),
        ("x: 2026-13-45", "wanted YAML, found something else"),
        ("&a {? *a : 1}", "wanted YAML, found"),
    ],
)
def test_a_wrong_file_stops_the_start(read: ReadFile, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    """With the place, what was wanted and what was found; no traceback of a library, no secret."""
    monkeypatch.setenv("BAD_KEY", "ümlaut-canary")
    with pytest.raises(InvalidRequestError) as caught:
        read(text)

    assert message in str(caught.value)
    assert "canary" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_all_problems_are_listed_at_once(read: ReadFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment and of the file."""
    monkeypatch.setenv("STATISTICAL_SIGNIFICANCE_THRESHOLD", "2")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///x")
    with pytest.raises(InvalidRequestError) as caught:
        read("models: {task: {model: a/b, max_attempts: 0, zzz: 1}}\nallow: {tools: 3}")

    lines = str(caught.value).splitlines()
    assert lines[0] == "the settings have 5 problems:"
    assert len(lines) == 6


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """Too long, or no text."""
    long, binary = tmp_path / "long.yaml", tmp_path / "binary.yaml"
    long.write_bytes(b"#" * (1024 * 1024 + 1))
    binary.write_bytes(b"\xff\xfe\x00")

    for path, message in ((long, "at most 1 MiB"), (binary, "it is no UTF-8"), (tmp_path, "a YAML file")):
        with pytest.raises(InvalidRequestError, match=message):
            read_document(path)


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["models", "named_models", "allow", "task", "model", "price", "fallbacks", "tools", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_every_wrong_document_gets_sentences(document: object) -> None:
    """Whatever stands in it: a list of sentences, never another error."""
    try:
        ConfigFile.model_validate(document)
    except ValidationError as error:
        said = sentences(error, ConfigFile)

        assert said
        assert all(": " in sentence for sentence in said)


@pytest.mark.parametrize(
    ("platform", "user_id", "environment", "expected"),
    [
        ("linux", 0, {"XDG_DATA_HOME": "/x"}, "/var/lib/dspy-opt"),
        ("linux", 1000, {}, "/home/u/.local/share/dspy-opt"),
        ("linux", 1000, {"XDG_DATA_HOME": "/x"}, "/x/dspy-opt"),
        ("linux", 1000, {"XDG_DATA_HOME": "relative"}, "/home/u/.local/share/dspy-opt"),
        ("darwin", 501, {}, "/home/u/Library/Application Support/dspy-opt"),
        ("win32", 1, {}, "/home/u/AppData/Local/dspy-opt"),
        ("win32", 1, {"LOCALAPPDATA": "/l"}, "/l/dspy-opt"),
    ],
)
def test_data_goes_to_the_users_own_place(
    platform: str, user_id: int, environment: dict[str, str], expected: str
) -> None:
    """By the XDG specification, where a relative path is to be ignored; root's goes to the system's."""
    place = default_data_directory(platform=platform, user_id=user_id, environment=environment, home=Path("/home/u"))

    assert place == Path(expected)


def test_the_default_place_is_never_in_roots_home() -> None:
    """Whoever runs this test."""
    assert not default_data_directory().is_relative_to("/root")
    assert default_data_directory(user_id=os.getuid(), home=Path.home()) == default_data_directory()
