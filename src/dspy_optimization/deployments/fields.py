"""Moments and ids in plain JSON."""

from datetime import datetime
from uuid import UUID

from dspy_optimization.agents.untrusted import Block
from dspy_optimization.experiments.bounds import checked_moment


def moment_of(block: Block, key: str) -> datetime:
    """Return the aware moment under a key. Raises `InvalidRequestError` that names the field."""
    text = block.text(key)
    try:
        return checked_moment(block.at(key), datetime.fromisoformat(text))
    except ValueError as error:
        raise block.wrong(key, "a moment in ISO 8601", "2026-03-01T12:00:00+00:00") from error


def uuid_of(block: Block, key: str) -> UUID:
    """Return the id under a key. Raises `InvalidRequestError` that names the field."""
    text = block.text(key)
    try:
        return UUID(text)
    except ValueError as error:
        raise block.wrong(key, "a UUID", "0199c1d2-0000-7000-8000-0000000000aa") from error
