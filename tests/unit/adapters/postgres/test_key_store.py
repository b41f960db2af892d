"""API keys: shown once, kept as a digest, ended at once."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa

from dspy_optimization.adapters.postgres import Database, PostgresKeys
from dspy_optimization.adapters.postgres.key_store import tenant_of
from dspy_optimization.errors import NotFoundError, StoreError
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole, Principal, TenantId

Damage = Callable[[str], str]


@pytest.fixture
def keys(database: Database) -> PostgresKeys:
    return PostgresKeys(database)


@pytest.mark.parametrize("role", AccessRole)
def test_a_key_stands_for_its_tenant_and_role(keys: PostgresKeys, other_tenant: TenantId, role: AccessRole) -> None:
    """Nothing of the one who asks is taken from elsewhere."""
    key = keys.create(other_tenant, role, "ci")

    assert Principal(tenant=other_tenant, name="ci", role=role) == keys.principal(key)


def test_the_key_itself_is_kept_nowhere(keys: PostgresKeys, database_url: str) -> None:
    """Neither the key nor its secret part; two keys of the same name differ."""
    one, two = (keys.create(LOCAL_TENANT, AccessRole.VIEWER, "ci") for _ in range(2))
    with psycopg.connect(database_url) as connection:
        kept = str(connection.execute("SELECT api_key::text, encode(digest, 'escape') FROM api_key").fetchall())

    assert re.fullmatch(r"dso_[0-9a-f]{12}_[0-9A-Za-z_-]{32}", one)
    assert one != two
    assert not any(part in kept for key in (one, two) for part in (key, key[17:]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda key: "",
        lambda key: key[:-1],
        lambda key: key + "x",
        lambda key: key + "\n",
        lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"),
        lambda key: key.upper(),
        lambda key: key[:4] + "0" * 12 + key[16:],
        lambda key: key.replace("dso", "dsx"),
        lambda key: "' OR '1'='1",
        lambda key: "\x00" + key,
    ],
)
def test_what_is_not_the_key_opens_nothing(keys: PostgresKeys, damage: Damage) -> None:
    """Too short, too long, another secret, another id, no key at all."""
    key = keys.create(LOCAL_TENANT, AccessRole.ADMINISTRATOR, "ci")

    assert keys.principal(damage(key)) is None
    assert keys.principal(key) is not None


def test_two_keys_do_not_mix(keys: PostgresKeys) -> None:
    """The id of one with the secret of another is none."""
    one, two = (keys.create(LOCAL_TENANT, AccessRole.VIEWER, "ci") for _ in range(2))

    assert keys.principal(one[:17] + two[17:]) is None


def test_a_key_ends_when_it_is_revoked_or_too_old(keys: PostgresKeys) -> None:
    """At once, and only that one; what is known of it stays, the newest first."""
    now = datetime.now(UTC)
    old = keys.create(LOCAL_TENANT, AccessRole.VIEWER, "old", now - timedelta(seconds=1))
    soon = keys.create(LOCAL_TENANT, AccessRole.VIEWER, "soon", now + timedelta(hours=1))
    gone = keys.create(LOCAL_TENANT, AccessRole.VIEWER, "gone")
    keys.revoke(gone[4:16])
    facts = keys.keys()

    assert [None, "soon", None] == [
        None if found is None else found.name for found in map(keys.principal, (old, soon, gone))
    ]
    assert ["gone", "soon", "old"] == [fact.name for fact in facts]
    assert [True, False, False] == [fact.revoked_at is not None for fact in facts]
    assert [None, now + timedelta(hours=1), now - timedelta(seconds=1)] == [fact.expires_at for fact in facts]
    assert {gone[4:16], soon[4:16], old[4:16]} == {fact.id for fact in facts}


def test_revoking_again_changes_nothing(keys: PostgresKeys) -> None:
    """When it ended stays when it ended."""
    key = keys.create(LOCAL_TENANT, AccessRole.VIEWER, "ci")
    keys.revoke(key[4:16])
    first = keys.keys()
    keys.revoke(key[4:16])

    assert first == keys.keys()


def test_revoking_what_is_not_there_says_so(keys: PostgresKeys) -> None:
    """An operator who mistyped an id must not believe that the key is gone."""
    with pytest.raises(NotFoundError, match="possible: dspy-opt keys ls"):
        keys.revoke("0" * 12)


def test_a_key_cannot_be_changed_into_another(keys: PostgresKeys, database: Database) -> None:
    """The application may end keys; role, tenant and digest are beyond it."""
    keys.create(LOCAL_TENANT, AccessRole.VIEWER, "ci")
    for change in ("role = 'administrator'", "holder = gen_random_uuid()", "digest = ''", "expires_at = NULL"):
        with pytest.raises(StoreError, match="permission denied"), database.shared() as connection:
            connection.execute(sa.text(f"UPDATE api_key SET {change}"))
    with pytest.raises(StoreError, match="permission denied"), database.shared() as connection:
        connection.execute(sa.text("DELETE FROM api_key"))


def test_a_name_is_a_tenant(keys: PostgresKeys, database_url: str) -> None:
    """The same name is the same tenant, kept once; another one is another; no key for one that is not kept."""
    tenant = tenant_of("acme")
    keys.add_tenant(tenant, "acme")
    keys.add_tenant(tenant, "other")
    with psycopg.connect(database_url) as connection:
        kept = connection.execute("SELECT name FROM tenant WHERE tenant_id = %s", [tenant]).fetchall()

    assert ([("acme",)], tenant) == (kept, tenant_of("acme"))
    assert 3 == len({tenant, tenant_of("Acme"), LOCAL_TENANT})
    assert 8 == tenant.version


def test_a_key_opens_the_data_of_a_tenant_that_exists(keys: PostgresKeys) -> None:
    """A key for nobody would only be found out at its first use."""
    with pytest.raises(NotFoundError):
        keys.create(tenant_of("nobody"), AccessRole.VIEWER, "ci")
