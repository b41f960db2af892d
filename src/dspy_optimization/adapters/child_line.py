"""What a worker and the process of an isolated optimization say to each other, a JSON object a line.

    to the child's standard input                       from its standard output
    {"settings": …, "paths": …, "levels": …, …}         {"log": {"name": …, "level": …, "message": …, "facts": …}}
    {"stop": "handover", "why": …}                      {"ended": "done", "error": null}

Settings hold keys and passwords and go this way alone, never by the command line. The end of its standard input tells a
child that its worker is gone. What agents print, and what Python says when it crashes, comes by standard error.
"""

from enum import StrEnum


class Order(StrEnum):
    """What a child is told to do."""

    HANDOVER = "handover"  # pause, for another process goes on
    PAUSE = "pause"
    CANCEL = "cancel"


class Ended(StrEnum):
    """What a child says last."""

    DONE = "done"  # the store says what became of it
    CONFLICT = "conflict"  # it has ended, or somebody else works on it
    AWAY = "away"  # the database is away
    INFRASTRUCTURE = "infrastructure"  # something else that may pass
