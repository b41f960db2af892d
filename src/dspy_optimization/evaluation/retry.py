"""When a failed call is tried again. Pure: the chance comes in as a number."""

from dataclasses import dataclass

from dspy_optimization.errors import InvalidRequestError, ModelBusyError, ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with full jitter; never earlier than the server asked for.

    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015 ("full jitter").
    """

    max_attempts: int = 5
    """Attempts of one call that may fail, the first included. Refusals of a busy server do not count: they end
    by themselves, usually within a minute, and only the deadline bounds them."""
    base_seconds: float = 0.5
    cap_seconds: float = 20.0
    """The longest pause the server did not ask for."""
    deadline_seconds: float = 300.0
    """From the start of the first attempt; no attempt starts later."""

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise InvalidRequestError(f"max_attempts: wanted at least 1, found {self.max_attempts}")
        for name in ("base_seconds", "cap_seconds", "deadline_seconds"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise InvalidRequestError(f"{name}: wanted 0 or more seconds, found {value:g}")

    def pause_seconds(self, attempt: int, retry_after_seconds: float | None, chance: float) -> float:
        """Return how long to pause after a failed attempt.

        Args:
            attempt: which one failed, from 1.
            retry_after_seconds: what the server asked for; the jitter comes on top, or all who were refused at
                once would come back at once.
            chance: in [0, 1).
        """
        ceiling = min(self.cap_seconds, self.base_seconds * 2.0 ** min(attempt - 1, 60))
        if retry_after_seconds is None:
            return chance * ceiling
        return retry_after_seconds + chance * min(self.cap_seconds, self.base_seconds)

    def verdict(self, error: ModelError, *, failures: int, elapsed_seconds: float, pause_seconds: float) -> str | None:
        """Return why there is no further attempt; None: there is one.

        Args:
            error: of the latest attempt.
            failures: attempts that failed so far without the server being busy.
            elapsed_seconds: since the start of the first attempt.
            pause_seconds: that would come before the next.
        """
        if not error.retryable:
            return "trying again cannot help"
        if not isinstance(error, ModelBusyError) and failures >= self.max_attempts:
            return f"that was attempt {failures} of {self.max_attempts}"
        if elapsed_seconds + pause_seconds > self.deadline_seconds:
            return (
                f"{elapsed_seconds:.1f} s have passed and the next attempt would start in {pause_seconds:.1f} s; "
                f"the deadline is {self.deadline_seconds:g} s"
            )
        return None
