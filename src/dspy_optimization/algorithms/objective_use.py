"""What an algorithm makes of several objectives."""

from enum import StrEnum

ATTRIBUTE = "objectives"
"""The class attribute in which an algorithm may say so."""


class ObjectiveUse(StrEnum):
    """What an algorithm climbs; how all others are served is the engine's."""

    UTILITY = "utility"  # one number, the weighted mean of all objectives; what an algorithm means that says nothing
    FRONT = "front"  # every objective by itself: none may get better at the cost of another unseen

    @property
    def sentence(self) -> str:
        """How it is told to people."""
        if self is ObjectiveUse.FRONT:
            return "any number, each by itself: candidates are compared by which others they dominate"
        return "any number, weighed into one score"


def use_of_objectives(algorithm: object) -> ObjectiveUse:
    """Return what an algorithm says of itself; `UTILITY` where it says nothing.

    Raises `ValueError` for a word that is none of them.
    """
    return ObjectiveUse(getattr(algorithm, ATTRIBUTE, ObjectiveUse.UTILITY))
