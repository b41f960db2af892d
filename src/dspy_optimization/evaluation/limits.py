"""How much one optimization may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps over all roles and across resumes; None: no cap."""

    max_cost_usd: float | None = None
    max_lm_calls: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
