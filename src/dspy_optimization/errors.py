"""The error tree.

Every message says what was wanted, what was found and what is possible.

    EngineError
    ├── InvalidRequestError        the caller can mend it: wrong file, option, dataset, metric, setting
    │   ├── NotFoundError          names what was looked for and what exists
    │   ├── ConflictError          the state does not allow this step; names the allowed ones
    │   ├── ExpiredError           it was there, and is not kept any longer
    │   └── BudgetUnknownError     a dollar cap is set and a price is not known
    ├── CapacityError              the request is right and cannot be taken in now
    │   ├── QueueFullError         as many wait as may wait; says when to come again
    │   └── NoGpuError             a GPU is asked for and none is there
    ├── InfrastructureError        never a score: a model, a database or a network did not do its part
    │   ├── ModelError             a language model call failed for good after its retries
    │   │   ├── ModelBusyError     the server has too much to do: slow down and try again
    │   │   ├── ModelAuthError     the key is missing, wrong or out of credit: retrying cannot help
    │   │   └── ModelRequestError  the model refuses this very request: retrying cannot help
    │   ├── StoreError             the database cannot be reached or refuses
    │   ├── TrackingError          MLflow did not take a result; the result itself is safe
    │   └── ProcessDiedError       the process of an isolated optimization ended before the optimization did
    ├── ProgramError               the agent itself failed on one example: a score with a reason
    └── AlgorithmError             an algorithm could not go on; what it recorded stays

`StopSearch` and its children are no errors and no `Exception`: optimizers swallow every `Exception`,
so what must end a search has to pass through them.

    StopSearch(BaseException)
    ├── CancelRequested            a person wants it to end; the best so far is kept
    ├── PauseRequested             a person wants it to go on later
    ├── BudgetSpent                a cap was reached; names the cap
    ├── TurnOver                   this algorithm's turn in the portfolio has ended
    ├── TargetMet                  a candidate reached every target on val: nothing more to look for
    ├── RequestFailed              carries the InvalidRequestError that only showed at work: a metric that breaks
    └── InfrastructureFailed       carries the InfrastructureError that no retry could mend
"""


class EngineError(Exception):
    """Root of everything this engine raises on purpose."""


class InvalidRequestError(EngineError):
    """Mend the request: the message names the value and what is possible."""


class NotFoundError(InvalidRequestError):
    """Use one of the names that the message lists."""


class ConflictError(InvalidRequestError):
    """Take one of the steps that the message lists as allowed."""


class ExpiredError(InvalidRequestError):
    """Nothing to mend: it was kept as long as the settings say."""


class CapacityError(EngineError):
    """Come again later, or ask for less."""


class QueueFullError(CapacityError):
    """Come again after `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NoGpuError(CapacityError):
    """Ask without a GPU, or start a worker that has one."""


class BudgetUnknownError(InvalidRequestError):
    """State a price for the model, or cap calls or tokens instead of dollars."""


class InfrastructureError(EngineError):
    """Look at what the message names, then resume: nothing finished is paid again."""


class ModelError(InfrastructureError):
    """Check the model server, then resume.

    `retryable` says whether trying again may help, `retry_after_seconds` what the server asked for.
    """

    def __init__(self, message: str, *, retryable: bool = False, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds


class ModelBusyError(ModelError):
    """Lower the rate limits of the model or wait, then resume: the server asked to slow down."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message, retryable=True, retry_after_seconds=retry_after_seconds)


class ModelAuthError(ModelError):
    """Give a valid key, then resume."""


class ModelRequestError(ModelError):
    """Change the request (too long, an option the model lacks), then start again."""


class StoreError(InfrastructureError):
    """Bring the database back, then resume."""


class TrackingError(InfrastructureError):
    """Bring the tracking server back, then track again: the optimization itself is kept and complete."""


class ProcessDiedError(InfrastructureError):
    """Look at what ended the process, then resume: nothing that was answered is paid again.

    `may_pass` says whether it was ended from outside, so that trying again may help.
    """

    def __init__(self, message: str, *, may_pass: bool) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class ProgramError(EngineError):
    """Nothing to mend: the agent failed on one example and that is its score."""


class AlgorithmError(EngineError):
    """Use another algorithm, or mend what the message names; nothing that was recorded is lost."""


class StopSearch(BaseException):
    """Ends a search; the optimizer that started the search catches it."""


class CancelRequested(StopSearch):
    """A person asked for the end."""


class PauseRequested(StopSearch):
    """A person asked for a pause."""


class BudgetSpent(StopSearch):
    """A cap was reached: `cap` is its name, `limit` its value."""

    def __init__(self, cap: str, limit: float) -> None:
        super().__init__(f"the cap {cap} = {limit:g} is reached")
        self.cap = cap
        self.limit = limit


class TurnOver(StopSearch):
    """The algorithm used up the share of the budget it had for this turn."""


class TargetMet(StopSearch):
    """A candidate reached the target of every objective that has one."""


class RequestFailed(StopSearch):
    """The request is wrong in a way that only the work could show; `error` says how."""

    def __init__(self, error: InvalidRequestError) -> None:
        super().__init__(str(error))
        self.error = error


class InfrastructureFailed(StopSearch):
    """A model or the database failed for good; `error` says what, why and what to do."""

    def __init__(self, error: InfrastructureError) -> None:
        super().__init__(str(error))
        self.error = error
