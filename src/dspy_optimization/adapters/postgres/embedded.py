"""A real PostgreSQL that needs no installation: in a folder of yours, on a unix socket that only you can open.

Any number of processes use one data folder at once. Who comes first starts the server, who leaves last stops it. Each
holds a shared file lock for as long as it lives, so one that was killed counts no more; a server that all its users
left by dying goes on running and serves the next.
"""

import fcntl
import hashlib
import os
import pwd
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psycopg
from psycopg import sql

from dspy_optimization.adapters.postgres.cluster import OWN_SERVER, Cluster, software, system_user, untraversable
from dspy_optimization.errors import InvalidRequestError, StoreError

DATABASE = "dspy_optimization"
TURN = "turn.lock"
USERS = "users.lock"
LONGEST_SOCKET_DIR = 80
"""Bytes; the whole socket path must stay below 104 on macOS and 108 on Linux."""


class EmbeddedPostgres:
    """One user's hold on the server of a data folder. Thread-safe; a context manager."""

    def __init__(self, data_dir: Path, cluster: Cluster) -> None:
        self._data_dir = data_dir
        self._cluster = cluster
        self._users: int | None = None

    @classmethod
    def open(cls, data_dir: Path) -> "EmbeddedPostgres":
        """Return a hold on the server of this folder, started when nobody runs it yet.

        The folder is made when missing; as root it is given to the system user that PostgreSQL runs as.
        Raises `InvalidRequestError` when the folder cannot be used, `StoreError` when the server does not start.
        """
        path = data_dir.expanduser().absolute()
        user = system_user()
        _prepare(path, user)
        with _alone(path):
            handle = cls(path, Cluster(path=path / "cluster", programs=software(path, user), user=user))
            users = os.open(path / USERS, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(users, fcntl.LOCK_SH)
            handle._users = users
            try:
                handle._run()
            except BaseException:
                handle._leave(users)
                raise
        return handle

    @property
    def url(self) -> str:
        """The URL of the engine's database; holds no password, for the socket itself is private."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the URL of another database on this server; the database need not exist."""
        socket_dir = self._cluster.socket_dir() or _socket_dir(self._data_dir)
        return f"postgresql://postgres@/{quote(database)}?host={quote(str(socket_dir))}"

    def ensure_running(self) -> None:
        """Start the server again when it died (out of memory, killed); nothing committed is lost."""
        if self._users is None:
            raise StoreError(f"the hold on the embedded PostgreSQL at {self._data_dir} is closed; open it again")
        with _alone(self._data_dir):
            self._run()

    def close(self) -> bool:
        """Give up the hold; the last one to go stops the server. Return whether this one did."""
        if self._users is None:
            return False
        with _alone(self._data_dir):
            self._leave(self._users)
            users = os.open(self._data_dir / USERS, os.O_RDWR)
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._cluster.stop()
                with suppress(OSError):
                    _socket_dir(self._data_dir).rmdir()
            except BlockingIOError:
                return False
            finally:
                os.close(users)
        return True

    def __enter__(self) -> "EmbeddedPostgres":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        self._cluster.initialize()
        if not self._answers():
            _make_socket_dir(_socket_dir(self._data_dir), self._cluster.user)
            self._cluster.start(_socket_dir(self._data_dir))
        try:
            self._create_database()
        except psycopg.Error as error:
            raise StoreError(
                f"the embedded PostgreSQL at {self._data_dir} runs but refuses: {error}; close what holds its"
                f" connections, {OWN_SERVER}"
            ) from error

    def _answers(self) -> bool:
        if self._cluster.socket_dir() is None:
            return False
        try:
            psycopg.connect(self.url_of("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            return "FATAL" in str(error) and "starting up" not in str(error)
        return True

    def _create_database(self) -> None:
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def _leave(self, users: int) -> None:
        self._users = None
        # Unlocked by name and not only closed: a forked child has a copy of the descriptor.
        fcntl.flock(users, fcntl.LOCK_UN)
        os.close(users)


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Let one process at a time make, start or stop the server of this folder."""
    turn = os.open(data_dir / TURN, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield
    finally:
        os.close(turn)


def _prepare(path: Path, user: pwd.struct_passwd | None) -> None:
    """Make the folder, private to who runs the server. Raises `InvalidRequestError` when that cannot be."""
    wanted = "wanted: a folder for the embedded database"
    possible = f"possible: another data folder, {OWN_SERVER}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        closed = untraversable(path) if user is not None else None
        if closed is not None and user is not None:
            raise InvalidRequestError(
                f"{wanted} that the system user {user.pw_name!r} can reach, for PostgreSQL refuses to run as root;"
                f" found: {path} lies below {closed}, which only its owner may enter;"
                f" possible: a data folder elsewhere, such as /var/lib/dspy-optimization, {OWN_SERVER}"
            )
        path.mkdir(mode=0o700, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
        if names and TURN not in names:
            raise InvalidRequestError(f"{wanted}, new or empty; found: {path} holds {min(names)!r}; {possible}")
        if user is not None:
            os.chown(path, user.pw_uid, user.pw_gid)
        path.chmod(0o700)
        os.close(os.open(path / TURN, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise InvalidRequestError(
            f"{wanted} that can be written; found: {path}: {error.strerror or error}; {possible}"
        ) from error


def _socket_dir(data_dir: Path) -> Path:
    """Return where the socket goes: beside the data, or below the temporary folder when that path would not do.

    pg_ctl passes the path through a shell and PostgreSQL reads commas in it as a list, hence the plain characters.
    """
    beside = data_dir / "socket"
    if len(os.fsencode(beside)) <= LONGEST_SOCKET_DIR and re.fullmatch(r"[\w./+-]+", str(beside), re.ASCII):
        return beside
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"dspy-optimization-{os.geteuid()}-{name}"


def _make_socket_dir(path: Path, user: pwd.struct_passwd | None) -> None:
    """Make it private to who runs the server; below the temporary folder, a stranger may have been there first."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode):
        path.chmod(0o700)
        if user is not None:
            os.chown(path, user.pw_uid, user.pw_gid)
    elif user is None or found.st_uid != user.pw_uid:
        raise InvalidRequestError(
            f"wanted: a socket folder of our own at {path}; found: one of user {found.st_uid};"
            f" possible: remove it, a data folder with a shorter path, {OWN_SERVER}"
        )
