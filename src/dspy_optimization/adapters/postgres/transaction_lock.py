"""Locks by name that end with the transaction, however it ends: one transaction at a time is behind each.

What others wrote before they let go is seen by every statement that begins after the lock was taken.
"""

import hashlib

import sqlalchemy as sa

# A key of 64 bits is shown as its two halves.
_HOLDERS = sa.text(
    """
    SELECT virtualtransaction FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (CAST(classid AS bigint) << 32 | CAST(objid AS bigint)) = :key
    """
)


def lock(connection: sa.Connection, name: str) -> None:
    """Wait until no other transaction of this database holds the name, and hold it."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_key(name))))


def try_lock(connection: sa.Connection, name: str) -> bool:
    """Hold the name if no other transaction does; say whether."""
    return bool(connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_key(name)))).scalar_one())


def share(connection: sa.Connection, name: str) -> None:
    """Hold the name together with everybody else who shares it."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_key(name))))


def holders(connection: sa.Connection, name: str) -> frozenset[str]:
    """Return the transactions that hold the name; no two of them are ever called the same."""
    return frozenset(connection.execute(_HOLDERS, {"key": _key(name)}).scalars())


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
