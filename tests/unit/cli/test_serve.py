"""`serve` and `keys`: what they refuse, what they print, how the service goes."""

import json
import logging
import re
import signal
import time
import urllib.request
from collections.abc import Iterator

import pytest

from cli_world import CliWorld
from dspy_optimization.cli.logs import configure_logs


@pytest.fixture
def kept_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("serve", "--role", "wrker"), "all, api, worker"),
        (("serve", "--port", "70000"), "--port"),
        (("serve", "--log", "xml"), "json or text"),
        (("serve", "--host", "0.0.0.0"), "DSPY_OPT_REQUIRE_KEYS"),
        (("keys", "create", "--role", "owner"), "viewer, researcher, administrator"),
        (("keys", "create", "--days", "-1"), "--days"),
        (("keys", "revoke", "0123456789ab"), "dspy-opt keys ls"),
    ],
)
def test_what_is_refused(world: CliWorld, words: tuple[str, ...], message: str) -> None:
    """Before anything is opened to anybody."""
    done = world.run(*words)

    assert (2, True) == (done.exit_code, message in done.stderr), done.stderr


def test_a_key_is_shown_once(world: CliWorld) -> None:
    """What is listed is not the key."""
    made = world.run("keys", "create", "--tenant", "acme", "--role", "viewer", "--name", "ci")
    key = made.stdout.strip()
    listed = world.run("keys", "ls", "--json")
    facts = json.loads(listed.stdout.strip().splitlines()[0])
    revoked = world.run("keys", "revoke", facts["id"])
    again = world.run("keys", "ls")

    assert re.fullmatch(r"dso_[0-9a-f]{12}_[\w-]{32}", key)
    assert ("viewer", "ci", "valid") == (facts["role"], facts["name"], facts["state"])
    assert key not in listed.stdout
    assert (0, True) == (revoked.exit_code, "revoked" in again.stdout)


def test_keys_that_ended_are_told_from_those_that_open_something(world: CliWorld) -> None:
    """Revoked, too old, still valid: each as what it is; when it ends is said."""
    for name, days in (("old", "0.000000001"), ("new", "30"), ("gone", "0.000000001")):
        world.run("keys", "create", "--name", name, "--days", days)
    ids = {one["name"]: one["id"] for one in _listed(world)}
    world.run("keys", "revoke", ids["gone"])
    told = world.run("keys", "ls").stdout
    states = {one["name"]: one["state"] for one in _listed(world)}

    assert {"old": "expired", "new": "valid", "gone": "revoked"} == states
    assert {True} == {one["expires_at"] is not None for one in _listed(world)}
    (old,), (new,) = ([line for line in told.splitlines() if name in line] for name in (" old", " new"))
    assert (True, True) == ("(ended 20" in old, "(until 20" in new)


def _listed(world: CliWorld) -> list[dict[str, str]]:
    return [json.loads(line) for line in world.run("keys", "ls", "--json").stdout.strip().splitlines()]


def test_the_service_starts_says_where_and_goes(world: CliWorld) -> None:
    """One command; SIGTERM ends it in good order."""
    process = world.start("serve", "--port", "0", "--log", "json")
    assert process.stderr is not None
    address = ""
    for line in process.stderr:
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found is not None:
            address = found[0]
            assert "event" in json.loads(line)
            break
    with urllib.request.urlopen(f"{address}/ready", timeout=20) as answer:
        ready = json.load(answer)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert ready["ready"] is True
    assert 30.0 > time.monotonic() - began
    assert process.returncode in {0, -signal.SIGTERM}


def test_no_secret_gets_into_the_log(capsys: pytest.CaptureFixture[str], kept_logging: None) -> None:
    """Whatever a line is about."""
    secrets = {
        "key": "dso_0123456789ab_0123456789abcdefABCDEF0123456789",
        "hook": "whsec_c2VjcmV0c2VjcmV0c2VjcmV0",
        "url": "user:hunter2@",
        "bearer": "abc.def.ghi",
    }
    configure_logs(logging.INFO, as_json=True)
    logging.getLogger("dspy_optimization.test").info(
        "Asked with %s at postgresql://%shost",
        secrets["key"],
        secrets["url"],
        extra={"action": "asked", "header": f"Bearer {secrets['bearer']}", "secret": secrets["hook"]},
    )
    written = capsys.readouterr().err

    assert "asked" == json.loads(written)["action"]
    assert [] == [name for name, secret in secrets.items() if secret.removesuffix("@") in written]


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_is_written_of_an_error_or_of_what_is_inside_a_fact(
    kept_logging: None, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    """In neither form: not its words, not the values of local variables, not what a fact holds."""
    hidden = [f"whsec_{letter * 20}" for letter in "abc"]

    def fails(local: str) -> None:
        raise RuntimeError(f"refused {hidden[0]} at postgresql://user:hunter2@host")

    configure_logs(logging.INFO, as_json=as_json)
    logger = logging.getLogger("dspy_optimization.test")
    try:
        fails(hidden[1])
    except RuntimeError:
        logger.exception("Broken", extra={"action": "broken", "facts": {"sent": [hidden[2]]}})
    written = capsys.readouterr().err

    assert "RuntimeError" in written
    assert "fails" in written
    assert [] == [one for one in (*hidden, "hunter2") if one in written]
    if as_json:
        assert {"sent": ["[secret]"]} == json.loads(written)["facts"]
