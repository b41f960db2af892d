import json
import logging
import signal
import sys
import warnings
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from cli_world import CliWorld
from dspy_optimization.algorithms.registry import AlgorithmRegistry
from dspy_optimization.cli import main
from dspy_optimization.cli.demonstration import demo_settings, demonstrate
from dspy_optimization.cli.displays import DisplayKind
from dspy_optimization.cli.examination import (
    State,
    examine_installation,
    examine_models,
    examine_places,
    examine_tracking,
)
from dspy_optimization.cli.logs import configure_logs, quieten_libraries
from dspy_optimization.cli.mlflow_view import view
from dspy_optimization.evaluation.model import Role
from dspy_optimization.settings import read_settings
from dspy_optimization.testing.model_server import ModelServer, Received, Reply, answer, refused

STAND_IN = """\
import os
import sys
from pathlib import Path

told = f"{' '.join(sys.argv[1:])}\\n{os.environ['MLFLOW_BACKEND_STORE_URI']}\\n"
Path(__file__).with_name("told").write_text(told, encoding="utf-8")
sys.exit(7)
"""
"""Of MLflow: says what it was told."""


def test_init_writes_files_that_work_and_never_over_others(world: CliWorld) -> None:
    """Both or none."""
    first = world.run("init", "new")
    again = world.run("init", "new")
    checked = world.run("datasets", "check", "new/agent.yaml")
    dry = world.run("optimize", "new/agent.yaml", "--dry-run")
    world.write("half/examples.jsonl", "mine")
    half = world.run("init", "half")
    blocked = world.run("init", "new/agent.yaml/below")

    assert (0, 1, 0, 0) == (first.exit_code, again.exit_code, checked.exit_code, dry.exit_code), dry.output
    assert (1, False) == (half.exit_code, (world.folder / "half" / "agent.yaml").exists())
    assert (2, True) == (blocked.exit_code, "a folder that can be written" in blocked.stderr)
    assert "dspy-opt optimize new/agent.yaml" in first.stdout


def test_doctor_finds_nothing_wrong_here(world: CliWorld) -> None:
    """Every row says what was found."""
    world = world.with_environment(MLFLOW_TRACKING_URI=None)
    rows = [json.loads(line) for line in world.run("doctor", "--json").stdout.splitlines()]
    asked = world.run("doctor", "--call")

    assert {"python", "packages", "algorithms", "settings", "data directory", "disk", "database", "mlflow"} <= {
        row["name"] for row in rows
    }
    assert [] == [row for row in rows if row["state"] == "failed"]
    assert (0, True, True) == (
        asked.exit_code,
        "fake at 127.0.0.1" in asked.stdout,
        "Everything works." in asked.stdout,
    )


def test_doctor_says_the_fix_of_every_failing_row(world: CliWorld, tmp_path: Path) -> None:
    """A database, a model, a tracking server and a directory that are not there."""
    (tmp_path / "config.yaml").write_text(
        json.dumps(
            {
                "models": {
                    "task": {"model": {"base_url": "http://127.0.0.1:9/v1", "model": "x"}, "max_attempts": 1},
                    "judge": {"model": "openai/gpt-4o-mini"},
                }
            }
        ),
        encoding="utf-8",
    )
    (tmp_path / "file").write_text("", encoding="utf-8")
    broken = world.with_environment(
        DATABASE_URL="postgresql://u:secret@127.0.0.1:9/x", DSPY_OPT_DATA_DIR=str(tmp_path / "file" / "below")
    )

    result = broken.run("doctor", "--json")
    rows = {row["name"]: row for row in map(json.loads, result.stdout.splitlines())}

    assert 1 == result.exit_code
    failed = {name for name, row in rows.items() if row["state"] == "failed"}
    assert {"data directory", "database", "model task, reflection", "mlflow"} == failed
    assert all(row["fix"] for row in rows.values() if row["state"] != "ok")
    assert "warning" == rows["model judge"]["state"]
    assert "secret" not in result.output
    assert "4 failed; the fixes stand beside them." in broken.run("doctor").stdout


def test_doctor_names_settings_that_cannot_be_read(world: CliWorld) -> None:
    """And looks no further."""
    result = world.with_environment(STATISTICAL_SIGNIFICANCE_THRESHOLD="2").run("doctor")

    assert (1, True) == (result.exit_code, "STATISTICAL_SIGNIFICANCE_THRESHOLD" in result.stdout)


def test_doctor_tells_a_wrong_key_from_a_broken_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also a price nobody knows, a named model, and a tracking server that answers."""
    monkeypatch.delenv("DSPY_CONFIG_PATH", raising=False)
    with ModelServer(refused(401, "no")) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.base_url)
        monkeypatch.setenv("A_KEY", "abc")
        path = tmp_path / "config.yaml"
        here = {"model": {"base_url": server.base_url, "model": "fake"}, "max_attempts": 1}
        path.write_text(
            json.dumps(
                {
                    "models": {"task": here},
                    "named_models": {"far": {"model": "openai/gpt-4o-mini", "api_key_env": "A_KEY"}},
                }
            ),
            encoding="utf-8",
        )
        monkeypatch.setenv("DSPY_CONFIG_PATH", str(path))
        settings = read_settings()
        free = list(examine_models(settings, call=False))
        asked = list(examine_models(replace(settings, named_models={}), call=True))
        tracking = examine_tracking(settings)
        stored = examine_tracking(replace(settings, mlflow_tracking_uri="sqlite:///x.db"))

    assert [State.OK, State.WARNING, State.OK] == [row.state for row in free]
    assert ("model far", True) == (free[2].name, "its key is set" in free[2].found)
    assert State.FAILED is asked[0].state
    assert (State.OK, State.OK) == (tracking.state, stored.state)


def test_packages_and_algorithms_that_do_not_fit_are_named() -> None:
    """A requirement for another platform does not count."""
    wanted = ["typer>=99", "no-such-package>=1", "rich>=14", "winloop; sys_platform == 'win32'"]
    broken = EntryPoint(name="own", value="no_such_module:Own", group="dspy_optimization.algorithms")

    rows = {row.name: row for row in examine_installation(wanted, AlgorithmRegistry([broken]))}

    assert (State.FAILED, State.FAILED) == (rows["packages"].state, rows["algorithm own"].state)
    assert "does not fit >=99; no-such-package is missing" in rows["packages"].found


def test_places_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The embedded database is looked at too."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("DSPY_CONFIG_PATH", raising=False)
    blocked = tmp_path / "blocked"
    (blocked / "postgres").mkdir(parents=True)
    (blocked / "postgres" / "something").write_text("", encoding="utf-8")

    rows = {
        row.name: row for row in examine_places(replace(read_settings(), data_directory=blocked), needed_bytes=1 << 60)
    }

    states = [rows[name].state for name in ("data directory", "disk", "database")]

    assert [State.OK, State.FAILED, State.FAILED] == states


def orders(request: Received) -> Reply:
    """Find the order number where demos were shown, say nothing useful otherwise."""
    messages = request.body["messages"]
    assert isinstance(messages, list)
    last = messages[-1]
    assert isinstance(last, dict)
    digits = [word.strip(".,:#") for word in str(last["content"]).split()]
    found = next((word for word in digits if word.isdigit() and len(word) == 5), "none")
    return answer(json.dumps({"order": found if len(messages) > 2 else "none"}))


def test_the_demo_shows_proof_change_and_where_everything_is(
    world: CliWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole demo on its own data, with a model that answers at once."""
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    with ModelServer(orders) as server:
        spec = replace(read_settings().models[Role.TASK], base_url=server.base_url)
        settings = replace(demo_settings(None), models=dict.fromkeys(Role, spec))
        code = demonstrate(settings, DisplayKind.NONE, as_json=False)
        out = capsys.readouterr().out
        again = demonstrate(settings, None, as_json=True)

    assert (0, "outcome") == (again, json.loads(capsys.readouterr().out.splitlines()[-1])["type"])
    assert (0, True) == (code, "order-finder: improved" in out)
    for part in ("no key, no server", "about 69 % right", "+ demo  message:", "MLflow:", "dspy-opt mlflow"):
        assert part in out
    agent = Path(next(line for line in out.splitlines() if line.startswith("Agent:")).split()[1])
    assert (agent / "agent" / "agent.json").is_file()
    assert (settings.data_directory / "reports" / "demo.html").is_file()


def test_the_demo_has_a_place_of_its_own_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And the local model in every role, whatever the configuration file says."""
    for name in ("DATABASE_URL", "DSPY_OPT_DATA_DIR", "DSPY_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    own, told = demo_settings(None), demo_settings(tmp_path)
    monkeypatch.setenv("DSPY_OPT_DATA_DIR", str(tmp_path / "data"))
    by_environment = demo_settings(None)

    assert "dspy-opt-demo" == own.data_directory.name
    assert (tmp_path, tmp_path / "data") == (told.data_directory, by_environment.data_directory)
    assert {"embedded"} == {spec.model for spec in own.models.values()}


def test_mlflow_is_shown_or_the_way_to_see_it(world: CliWorld, tmp_path: Path) -> None:
    """With a server of one's own there is nothing to hold; else the database is held until Ctrl-C."""
    elsewhere = world.run("mlflow")
    process = world.with_environment(MLFLOW_TRACKING_URI="").start("mlflow", "--port", "5077")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(5)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)

    assert (2, True) == (elsewhere.exit_code, "MLFLOW_TRACKING_URI is set" in elsewhere.stderr)
    assert any("mlflow ui --port 5077" in line for line in lines), lines
    assert 0 == process.returncode


def test_without_the_interface_the_database_is_held(
    world: CliWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With it MLflow is started, here a stand-in, and its exit code returned; no address with a password is printed."""
    for name, value in world.environment.items():
        monkeypatch.setenv(name, value or "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")

    def interrupted() -> None:
        raise KeyboardInterrupt

    held = view(5078, interrupted)
    installed = tmp_path / "mlflow-3.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow\nVersion: 3.0\n", encoding="utf-8")
    (tmp_path / "mlflow.py").write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "")
    served = view(5078, interrupted)
    told, backend = (tmp_path / "told").read_text(encoding="utf-8").splitlines()

    assert (0, 7) == (held, served)
    assert "ui --host 127.0.0.1 --port 5078" == told
    assert backend.startswith("postgresql+psycopg://postgres@/mlflow?"), backend
    assert '"$DATABASE_URL of the database mlflow"' in capsys.readouterr().out


def test_the_installed_command_speaks_on_the_right_streams(world: CliWorld) -> None:
    """Log lines and errors never stand among the results."""
    process = world.start("--debug", "runs", "show", "nope")
    out, errors = process.communicate(timeout=60)

    assert (2, "") == (process.returncode, out)
    assert "error: wanted: an optimization whose id begins with 'nope'" in errors


def test_main_runs_the_words_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the installed script calls."""
    monkeypatch.setattr(sys, "argv", ["dspy-opt", "metrics", "--json"])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
        main()

    assert (0, True) == (ended.value.code, "exact_match" in capsys.readouterr().out)


def test_log_lines_go_to_whatever_standard_error_is(capsys: pytest.CaptureFixture[str]) -> None:
    """The live panel puts itself there; libraries speak through the same handler."""
    root, own = logging.getLogger(), logging.getLogger("dspy_optimization")
    before = (root.handlers, root.level, own.level)
    foreign = logging.getLogger("dspy")
    kept = (foreign.handlers, foreign.level, foreign.propagate)
    try:
        configure_logs(logging.INFO)
        quieten_libraries()
        logging.getLogger("dspy_optimization.x").info("Told", extra={"action": "tell"})
        foreign.warning("not heard")
    finally:
        root.handlers, root.level, own.level = before
        foreign.handlers, foreign.level, foreign.propagate = kept
    found = capsys.readouterr()

    assert ("", True, False) == (found.out, "Told" in found.err and "action" in found.err, "not heard" in found.err)
