"""A database of another program on the same server."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import NullPool

from dspy_optimization.adapters.postgres.failures import Address, parse_url
from dspy_optimization.errors import InvalidRequestError

_POLLING_SECONDS = 0.1
_THERE_ALREADY = frozenset({"42P04", "23505"})
_NOT_ALLOWED = "42501"
_NO_SUCH_DATABASE = "3D000"


def database_beside(url: str, name: str) -> str:
    """Return the URL of the database of this name on the server of `url`, made when it is missing.

    Raises:
        InvalidRequestError: it is missing and the user of `url` may not make databases.
        StoreError: the server is away.
    """
    own = parse_url(url)
    address = Address.of(own)
    beside = own.set(database=name)
    with address.guard():
        if not _exists(beside):
            _create(own, name, address)
    return beside.render_as_string(hide_password=False)


@contextmanager
def alone(url: str, lock: int) -> Iterator[None]:
    """Let one process at a time be inside, among all that use this lock in this database.

    For programs that make their schema without locking it. Raises `StoreError` when the server is away.
    """
    parsed = parse_url(url)
    address = Address.of(parsed)
    with address.guard(), _engine(parsed).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Held by the session: it ends with the connection, however this process ends. Asked for again and again, for
        # CREATE INDEX CONCURRENTLY of the one inside would wait for those who wait inside a statement: for ever.
        while not connection.execute(sa.text("SELECT pg_try_advisory_lock(:lock)"), {"lock": lock}).scalar_one():
            time.sleep(_POLLING_SECONDS)
        yield


def _engine(url: sa.URL) -> sa.Engine:
    return sa.create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args={"connect_timeout": 10})


def _exists(url: sa.URL) -> bool:
    try:
        _engine(url).connect().close()
    except exc.OperationalError as error:
        # Before there is a session libpq gives no SQLSTATE, only its words; the engine's own database told them apart.
        if getattr(error.orig, "sqlstate", None) == _NO_SUCH_DATABASE or "does not exist" in str(error.orig):
            return False
        raise
    return True


def _create(own: sa.URL, name: str, address: Address) -> None:
    engine = _engine(own)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        quoted = engine.dialect.identifier_preparer.quote_identifier(name)
        try:
            connection.execute(sa.text(f"CREATE DATABASE {quoted}"))
        except exc.DBAPIError as error:
            state = getattr(error.orig, "sqlstate", None)
            if state == _NOT_ALLOWED:
                raise InvalidRequestError(
                    f"wanted: a database {name!r} on the server of {address.shown}; found: none, and this user may not"
                    f" make one; possible: let an administrator run CREATE DATABASE {quoted} OWNER"
                    f" {engine.dialect.identifier_preparer.quote_identifier(own.username or 'user')}"
                ) from error
            if state not in _THERE_ALREADY:
                raise
