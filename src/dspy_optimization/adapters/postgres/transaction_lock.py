"""Locks by name that end with the transaction, however it ends: one transaction at a time is behind each.

What others wrote before they let go is seen by every statement that begins after the lock was taken.
"""

import hashlib

import sqlalchemy as sa


def lock(connection: sa.Connection, name: str) -> None:
    """Wait until no other transaction of this database holds the name, and hold it."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_key(name))))


def try_lock(connection: sa.Connection, name: str) -> bool:
    """Hold the name if no other transaction does; say whether."""
    return bool(connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_key(name)))).scalar_one())


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
