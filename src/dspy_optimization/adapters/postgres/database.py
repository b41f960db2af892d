"""The one door to PostgreSQL: migrated, as a role that row-level security binds, one tenant a transaction.

The URL has to lead to a session: PostgreSQL itself or a pooler in session mode. Role and advisory locks belong to it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from types import TracebackType
from typing import NamedTuple

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg import Connection as DriverConnection
from sqlalchemy import event, exc
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from dspy_optimization.adapters.postgres.escaping import from_text, to_text
from dspy_optimization.adapters.postgres.failures import Address, parse_url
from dspy_optimization.adapters.postgres.ownership import Ownership
from dspy_optimization.adapters.postgres.tables import APPLICATION_ROLE, TENANT_SETTING
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.tenancy import TenantId

OLDEST_SERVER = 14
MIGRATION_LOCK = 0x6473_7079_6F70_7400
VERSION_TABLE = "schema_version"
# A server notices within a minute that a client's machine is gone and frees what it held.
SESSION = (
    f"SET ROLE {APPLICATION_ROLE}",
    "SET tcp_keepalives_idle = 30",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
)
CONNECT = {
    "connect_timeout": 10,
    "application_name": "dspy-optimization",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}

_SET_TENANT = sa.text("SELECT set_config(:setting, :tenant, true)")
_ROLE_RIGHTS = sa.text("SELECT current_user, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")


class Schema(NamedTuple):
    """Which revision the database is at, and which is the newest this code knows."""

    found: str | None
    newest: str | None


class Database:
    """Connections to one database. Thread-safe; a context manager."""

    def __init__(self, engine: sa.Engine, address: Address) -> None:
        self._engine = engine
        self._address = address
        self.ownership = Ownership(lambda: engine.connect().execution_options(isolation_level="AUTOCOMMIT"))

    @classmethod
    def open(
        cls,
        url: str,
        *,
        pool_size: int = 10,
        max_overflow: int = 20,
        wait_seconds: float = 30.0,
        worker: str | None = None,
    ) -> "Database":
        """Return the database, brought to the newest schema; any number of processes may do so at once.

        Args:
            url: of PostgreSQL.
            pool_size: connections kept open.
            max_overflow: connections opened beside them when all are in use.
            wait_seconds: how long a transaction waits for a connection when all of these are in use.
            worker: whose sessions these are, so that they can be cut off should it be taken for dead.

        Raises:
            InvalidRequestError: the URL, the server's version or the rights have to be mended.
            StoreError: anything else the server says. No message holds the password.
        """
        parsed = parse_url(url)
        address = Address.of(parsed)
        with address.guard_start():
            _migrate(parsed, address)
            engine = sa.create_engine(
                parsed,
                pool_size=pool_size,
                max_overflow=max_overflow,
                pool_timeout=wait_seconds,
                pool_pre_ping=True,
                hide_parameters=True,
                json_serializer=to_text,
                json_deserializer=from_text,
                connect_args=CONNECT if worker is None else {**CONNECT, "application_name": session_name(worker)},
            )
            event.listen(engine, "connect", _become_application)
            try:
                _refuse_rights(engine, address)
            except BaseException:
                engine.dispose()
                raise
        return cls(engine, address)

    @contextmanager
    def transaction(self, tenant: TenantId) -> Iterator[sa.Connection]:
        """Open a transaction that sees and writes the rows of one tenant; it commits when the block ends well.

        A connection that turns out to be lost before the block begins is replaced once. Raises `StoreError` when the
        database is away or refuses; the block is then undone and may be tried again.
        """
        with self._address.guard(), ExitStack() as stack:
            yield self._begin(tenant, stack)

    @contextmanager
    def shared(self) -> Iterator[sa.Connection]:
        """Open a transaction that sees no tenant's rows, only the tables that belong to nobody. As `transaction`."""
        with self._address.guard(), ExitStack() as stack:
            yield self._begin(None, stack)

    def schema(self) -> "Schema":
        """Return where the schema stands. `StoreError` when the database is away."""
        with self._address.guard(), self._engine.connect() as connection, connection.begin():
            # Whoever owns the schema reads its version; the application's role has no right to.
            connection.execute(sa.text("SET LOCAL ROLE NONE"))
            return Schema(found=_found(connection), newest=_newest())

    def guarded(self) -> AbstractContextManager[None]:
        """Turn the driver's errors inside the block into `StoreError`."""
        return self._address.guard()

    @contextmanager
    def owning(self, tenant: TenantId, optimization_id: OptimizationId) -> Iterator[None]:
        """Hold an optimization until the block ends or this process dies. Raises `ConflictError` when it is held."""
        with self._address.guard():
            self.ownership.claim(tenant, optimization_id)
        try:
            yield
        finally:
            self.ownership.release(tenant, optimization_id)

    def close(self) -> None:
        """Give back every connection and everything owned."""
        self.ownership.close()
        self._engine.dispose()

    def __enter__(self) -> "Database":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, tenant: TenantId | None, stack: ExitStack) -> sa.Connection:
        try:
            return self._begin_once(tenant, stack)
        except exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return self._begin_once(tenant, stack)

    def _begin_once(self, tenant: TenantId | None, stack: ExitStack) -> sa.Connection:
        with ExitStack() as opened:
            connection = opened.enter_context(self._engine.connect())
            opened.enter_context(connection.begin())
            named = "" if tenant is None else str(tenant)
            connection.execute(_SET_TENANT, {"setting": TENANT_SETTING, "tenant": named})
            stack.push(opened.pop_all())
        return connection


def session_name(worker: str) -> str:
    """Return the application name of a worker's sessions: 63 bytes at most, as PostgreSQL keeps it."""
    return f"dspy-opt {worker}"[:63]


def _become_application(connection: "DriverConnection[object]", _entry: ConnectionPoolEntry) -> None:
    # In a transaction a later rollback would take the role back.
    connection.autocommit = True
    for statement in SESSION:
        connection.execute(statement)
    connection.autocommit = False


def _refuse_rights(engine: sa.Engine, address: Address) -> None:
    with engine.connect() as connection:
        role, unbound = connection.execute(_ROLE_RIGHTS).one()
    if unbound:
        raise InvalidRequestError(
            f"wanted: the role {APPLICATION_ROLE} without SUPERUSER and BYPASSRLS, so that no tenant sees another;"
            f" found: {role} with one of them at {address.shown}; possible: ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "dspy_optimization.adapters.postgres:migrations")
    return config


@cache  # the files are those of this release
def _newest() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def _migrate(url: sa.URL, address: Address) -> None:
    """Bring the schema to the newest version, one process at a time."""
    config, newest = _config(), _newest()
    engine = sa.create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=CONNECT)
    with engine.connect() as connection:
        version = connection.execute(sa.text("SELECT current_setting('server_version_num')::int")).scalar_one()
        if version // 10_000 < OLDEST_SERVER:
            raise InvalidRequestError(
                f"wanted: PostgreSQL {OLDEST_SERVER} or newer; found: {version // 10_000} at {address.shown};"
                " possible: a newer server, or no DATABASE_URL for the embedded one"
            )
        if _found(connection) == newest:
            return
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise InvalidRequestError(
                f"wanted: a database with schema {newest} or older; found: schema {_found(connection)} at"
                f" {address.shown}, made by a newer engine; possible: the newer engine, another database"
            ) from error
        connection.commit()


def _found(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
