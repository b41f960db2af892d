"""The command line, `dspy-opt`."""

from dspy_optimization.cli.command_line import main

__all__ = ["main"]
