"""Makes LLM agents measurably better, and proves it on data nobody optimized on."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspy_optimization.api import NotFinishedError, Optimized, load, optimize, pick

__all__ = ["NotFinishedError", "Optimized", "load", "optimize", "pick"]


def __getattr__(name: str) -> object:
    """Import the interface when somebody first asks for it: the command line starts without DSPy."""
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("dspy_optimization.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; possible: {', '.join(__all__)}")
