"""What the command line tells the shell."""

from enum import IntEnum

from dspy_optimization.errors import ConflictError, EngineError, InvalidRequestError, ModelAuthError

EXPLAINED = (
    "Exit codes: 0 done, 1 error, 2 wrong input, 3 the gate of --fail-under was not met, 4 a cap was reached before "
    "anything could be proven, 5 a model refuses the key, 130 interrupted (resumable)."
)


class ExitCode(IntEnum):
    """The exit codes; `EXPLAINED` says them in words."""

    OK = 0
    ERROR = 1
    WRONG_INPUT = 2
    GATE_NOT_MET = 3
    BUDGET_EXHAUSTED = 4
    REFUSED_KEY = 5
    INTERRUPTED = 130


def exit_code_of(error: EngineError) -> ExitCode:
    """Return the code for an error that ends a command."""
    if isinstance(error, ModelAuthError):
        return ExitCode.REFUSED_KEY
    if isinstance(error, InvalidRequestError) and not isinstance(error, ConflictError):
        return ExitCode.WRONG_INPUT
    return ExitCode.ERROR
