"""API keys: made, looked up, revoked. A key is shown once; what is kept cannot be turned back into it.

A key is 192 random bits, so a plain digest of it is as good as a slow one.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from dspy_optimization.adapters.postgres.database import Database
from dspy_optimization.adapters.postgres.tables import api_key as table
from dspy_optimization.adapters.postgres.tables import tenant as tenants
from dspy_optimization.errors import NotFoundError
from dspy_optimization.tenancy import AccessRole, Principal, TenantId

PREFIX = "dso"
_FORM = re.compile(r"dso_([0-9a-f]{12})_([0-9A-Za-z_-]{32})")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """What is known of a key; not the key itself."""

    id: str
    tenant: TenantId
    role: AccessRole
    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class PostgresKeys:
    """Keys of every tenant. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, tenant: TenantId, role: AccessRole, name: str, expires_at: datetime | None = None) -> str:
        """Return a new key, which nobody can be shown again. Raises `NotFoundError`.

        Args:
            tenant: whose data it opens; has to be kept.
            role: what it may be used for.
            name: for people.
            expires_at: aware; None: never.
        """
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(24)
        key = f"{PREFIX}_{key_id}_{secret}"
        row = {
            "key_id": key_id,
            "holder": tenant,
            "role": role.value,
            "name": name,
            "digest": _digest(key),
            "expires_at": expires_at,
        }
        with self._database.transaction(tenant) as connection:
            if connection.execute(sa.select(tenants.c.tenant_id)).first() is None:
                raise NotFoundError(f"wanted: the tenant {tenant}; found: none of that id; possible: add it first")
            connection.execute(sa.insert(table).values(row))
        return key

    def principal(self, key: str) -> Principal | None:
        """Return who the key stands for; None when it is unknown, wrong, revoked or too old."""
        form = _FORM.fullmatch(key)
        if form is None:
            return None
        query = sa.select(table).where(
            table.c.key_id == form[1],
            table.c.revoked_at.is_(None),
            sa.or_(table.c.expires_at.is_(None), table.c.expires_at > sa.func.now()),
        )
        with self._database.shared() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or not hmac.compare_digest(bytes(row.digest), _digest(key)):
            return None
        return Principal(tenant=TenantId(row.holder), name=row.name, role=AccessRole(row.role))

    def keys(self) -> Sequence[KeyFacts]:
        """Return every key, the newest first."""
        with self._database.shared() as connection:
            return [
                KeyFacts(
                    id=row.key_id,
                    tenant=TenantId(row.holder),
                    role=AccessRole(row.role),
                    name=row.name,
                    created_at=row.created_at,
                    expires_at=row.expires_at,
                    revoked_at=row.revoked_at,
                )
                for row in connection.execute(sa.select(table).order_by(table.c.created_at.desc()))
            ]

    def revoke(self, key_id: str) -> None:
        """End a key at once; one that has ended stays as it is. Raises `NotFoundError`."""
        ended = (
            sa.update(table)
            .where(table.c.key_id == key_id)
            .values(revoked_at=sa.func.coalesce(table.c.revoked_at, sa.func.now()))
        )
        with self._database.shared() as connection:
            if connection.execute(ended).rowcount == 0:
                raise NotFoundError(
                    f"wanted: the key {key_id}; found: none of that id; possible: dspy-opt keys ls lists them"
                )

    def add_tenant(self, tenant: TenantId, name: str) -> None:
        """Keep a tenant; the same one again changes nothing."""
        with self._database.transaction(tenant) as connection:
            connection.execute(insert(tenants).values(tenant_id=tenant, name=name).on_conflict_do_nothing())


def tenant_of(name: str) -> TenantId:
    """Return the id of a tenant by its name, a UUIDv8 (RFC 9562): the same name is the same tenant."""
    value = int.from_bytes(hashlib.sha256(f"tenant/{name}".encode()).digest()[:16], "big")
    # Python makes versions above 5 by itself only since 3.14.
    value = value & ~(0xF << 76) | 0x8 << 76
    return TenantId(UUID(int=value & ~(0x3 << 62) | 0x2 << 62))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
