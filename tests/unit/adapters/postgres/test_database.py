"""The door to PostgreSQL: who gets in, and what is said when something is wrong."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import psycopg
import pytest
import sqlalchemy as sa

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres
from dspy_optimization.adapters.postgres import database as module
from dspy_optimization.adapters.postgres.embedded import DATABASE
from dspy_optimization.adapters.postgres.failures import Address, parse_url
from dspy_optimization.errors import ConflictError, InvalidRequestError, StoreError
from dspy_optimization.tenancy import TenantId

PASSWORD = "open sesame@/1"
QUOTED = "open%20sesame%40%2F1"
ONE = sa.text("SELECT 1")


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that tests may stop, and whose roles they may change."""
    data_dir = Path(tempfile.mkdtemp(prefix="dspy-opt-own-"))
    with EmbeddedPostgres.open(data_dir) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            for role, rights in (("guest", ""), ("owner", "CREATEROLE")):
                connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}' {rights}")
            connection.execute("CREATE DATABASE owned OWNER owner")
            rules = data_dir / "cluster" / "pg_hba.conf"
            rules.write_text("local all guest,owner scram-sha-256\n" + rules.read_text())
            connection.execute("SELECT pg_reload_conf()")
        yield server
    rmtree(data_dir)


def as_user(server: EmbeddedPostgres, user: str, password: str = QUOTED, database: str = DATABASE) -> str:
    return server.url_of(database).replace("postgres@", f"{user}:{password}@")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("", "text without a scheme"),
        ("sesame", "text without a scheme"),
        ("mysql://u:sesame@h/d", "one that begins with 'mysql'"),
        ("postgresql+asyncpg://u:sesame@h/d", r"one that begins with 'postgresql\+asyncpg'"),
        ("se same://x", "text without a scheme"),
        ("postgresql://u:sesame@h:port/d", "a URL that cannot be read"),
        ("postgresql://u:sesame@h", "no database name"),
    ],
)
def test_what_is_no_database_url_is_refused(url: str, found: str) -> None:
    """The message shows how one looks and never the password."""
    with pytest.raises(
        InvalidRequestError, match=f"wanted: a database URL like .*; found: {found}.*; possible"
    ) as caught:
        Database.open(url)

    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgres://u@h/d", "postgresql://u@h/d", "postgresql+psycopg://u@h/d"])
def test_every_usual_form_of_url_is_taken(url: str) -> None:
    """All of them lead to the one driver."""
    assert "postgresql+psycopg://u@h/d" == str(parse_url(url))


@pytest.mark.parametrize(
    ("url", "possible"),
    [
        ("postgresql://u:sesame@127.0.0.1:1/d", "start the server there"),
        ("postgresql://u:sesame@/d?host=/nowhere", "start the server there"),
        ("postgresql://u:sesame@no-such-host.invalid/d", "another host"),
        ("postgresql://u@127.0.0.1:1/d?password=sesame", "start the server there"),
    ],
)
def test_a_server_that_is_not_there_is_named(url: str, possible: str) -> None:
    """Where it was looked for, what the system said, what to do; never the password."""
    with pytest.raises(
        InvalidRequestError, match=f"wanted: the database at u@.*/d; found: .*; possible: .*{possible}"
    ) as c:
        Database.open(url)

    assert "sesame" not in str(c.value)


def test_secrets_are_struck_out_of_what_a_driver_says() -> None:
    """Even when it repeats the whole URL."""
    address = Address.of(parse_url("postgresql://u:sesame@one,two:5/d?sslpassword=rose"))

    assert "no sesame, that is: no ***" != address.clean(ValueError("no sesame, that is: no rose"))
    assert "no ***, that is: no ***" == address.clean(ValueError("no sesame,\n that is: no rose"))
    assert "u@one,two:5/d" == address.shown


@pytest.mark.parametrize(
    ("user", "password", "database", "message"),
    [
        ("guest", "wrong", DATABASE, "password authentication failed.*another user or password"),
        ("nobody", QUOTED, DATABASE, 'role "nobody" does not exist.*another user'),
        ("postgres", "", "nothing", 'database "nothing" does not exist.*create that database'),
        ("guest", QUOTED, DATABASE, "permission denied.*a user in DATABASE_URL that may create roles"),
    ],
)
def test_a_refused_user_is_told_why(
    own_server: EmbeddedPostgres, user: str, password: str, database: str, message: str
) -> None:
    """Wrong password, user, database or rights."""
    with pytest.raises(InvalidRequestError, match=message) as caught:
        Database.open(as_user(own_server, user, password, database))

    assert PASSWORD not in str(caught.value)
    assert QUOTED not in str(caught.value)


def test_an_owner_without_superuser_rights_is_enough(own_server: EmbeddedPostgres, tenant: TenantId) -> None:
    """As in production: may create roles, owns its database, nothing more."""
    url = as_user(own_server, "owner", database="owned")
    with Database.open(url) as database, database.transaction(tenant) as connection:
        found = connection.execute(sa.text("SELECT current_user::text, name FROM tenant")).one()

    assert ("dspy_opt_app", "local") == tuple(found)


@pytest.mark.parametrize("right", ["SUPERUSER", "BYPASSRLS"])
def test_a_role_that_sees_every_tenant_is_refused(own_server: EmbeddedPostgres, right: str) -> None:
    """Row-level security would not bind it."""
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        Database.open(own_server.url).close()
        connection.execute(f"ALTER ROLE dspy_opt_app {right}")
        with pytest.raises(
            InvalidRequestError, match=r"without SUPERUSER and BYPASSRLS.*ALTER ROLE dspy_opt_app NOSUPER"
        ):
            Database.open(own_server.url)
        connection.execute(f"ALTER ROLE dspy_opt_app NO{right}")


def test_an_old_server_is_refused(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no old server here, so the oldest one allowed is moved up."""
    monkeypatch.setattr(module, "OLDEST_SERVER", 99)

    with pytest.raises(InvalidRequestError, match="wanted: PostgreSQL 99 or newer; found: 18 at"):
        Database.open(database_url)


def test_an_error_undoes_the_transaction(database: Database, tenant: TenantId) -> None:
    """Errors of the caller pass as they are; what was written before them is gone."""

    def fail() -> None:
        with database.transaction(tenant) as connection:
            connection.execute(sa.text("INSERT INTO lm_answer (key, document) VALUES ('k', '{}')"))
            raise ConflictError("mine")

    with pytest.raises(ConflictError, match="mine"):
        fail()

    with database.transaction(tenant) as connection:
        assert 0 == connection.execute(sa.text("SELECT count(*) FROM lm_answer")).scalar_one()


def test_a_value_that_cannot_be_kept_is_refused(database: Database, tenant: TenantId) -> None:
    """It is the caller's to mend, not the database's."""
    insert = sa.text("INSERT INTO lm_answer (key, document) VALUES ('k', :document)").bindparams(
        sa.bindparam("document", type_=sa.JSON())
    )
    with pytest.raises(InvalidRequestError, match="not JSON compliant"), database.transaction(tenant) as connection:
        connection.execute(insert, {"document": float("nan")})


def test_no_free_connection_is_a_store_error(database_url: str, tenant: TenantId) -> None:
    """Waiting has an end."""
    with (
        Database.open(database_url, pool_size=1, max_overflow=0, wait_seconds=0.05) as database,
        database.transaction(tenant),
        pytest.raises(StoreError, match=r"no connection .* became free"),
        database.transaction(tenant),
    ):
        pass


def test_a_lost_connection_is_replaced_before_anything_is_done(
    database: Database, database_url: str, tenant: TenantId
) -> None:
    """One that was cut while idle, and one that is cut between the look and the first statement."""
    cut = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    cuts = [1]

    def cut_once(*_: object) -> None:
        if cuts and cuts.pop():
            connection.execute(cut)

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(cut)
        with database.transaction(tenant) as mine:
            assert 1 == mine.execute(ONE).scalar_one()
        sa.event.listen(database._engine, "begin", cut_once)
        with database.transaction(tenant) as mine:
            assert 1 == mine.execute(ONE).scalar_one()

    assert [] == cuts


def test_a_connection_lost_in_the_middle_is_a_store_error(
    database: Database, database_url: str, tenant: TenantId
) -> None:
    """What was done is undone; trying again is for the caller, and works."""

    def work() -> None:
        with database.transaction(tenant) as mine:
            pid = mine.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            mine.execute(ONE)

    with pytest.raises(StoreError, match=r"is away: .*bring it back, then resume"):
        work()

    with database.transaction(tenant) as mine:
        assert 1 == mine.execute(ONE).scalar_one()


def test_the_server_may_go_and_come_back(own_server: EmbeddedPostgres, tenant: TenantId) -> None:
    """Killed without warning: StoreError while it is down, everything committed is there afterwards."""
    insert = sa.text("INSERT INTO lm_answer (key, document) VALUES ('before', '{}')")
    with Database.open(own_server.url) as database:
        with database.transaction(tenant) as connection:
            connection.execute(insert)
        own_server._cluster._call("pg_ctl", "stop", "-m", "immediate", "-D", str(own_server._cluster.path))
        for _ in range(2):
            with pytest.raises(StoreError, match="is away"), database.transaction(tenant):
                pass

        own_server.ensure_running()

        with database.transaction(tenant) as connection:
            assert ["before"] == connection.execute(sa.text("SELECT key FROM lm_answer")).scalars().all()
