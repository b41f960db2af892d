"""Errors that only a client meets; the others are those of `dspy_optimization.errors`.

EngineError
├── AccessError        the service wants a key, or another one
└── NotFinishedError   there is no result: it waits, works, was paused, failed or was cancelled
"""

from dspy_optimization.errors import EngineError


class AccessError(EngineError):
    """Send a key that is valid (`status` 401) or one that allows this (403)."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class NotFinishedError(EngineError):
    """Look at the message; `client.optimization(error.optimization_id)` finds it again."""

    def __init__(self, message: str, *, optimization_id: str) -> None:
        super().__init__(message)
        self.optimization_id = optimization_id
