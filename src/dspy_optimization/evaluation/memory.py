"""The answers a session used last."""

from collections import OrderedDict

from dspy_optimization.errors import ModelRequestError
from dspy_optimization.evaluation.model import CallKey, ModelResponse


class Memory:
    """The answers and refusals used last. Not thread-safe: its owner locks."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[CallKey, ModelResponse | ModelRequestError] = OrderedDict()

    def get(self, key: CallKey) -> ModelResponse | ModelRequestError | None:
        """Return what is known, and count it as used."""
        known = self._kept.get(key)
        if known is not None:
            self._kept.move_to_end(key)
        return known

    def keep(self, key: CallKey, outcome: ModelResponse | ModelRequestError) -> None:
        """Remember the outcome; forget what was not used for longest."""
        self._kept[key] = outcome
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
