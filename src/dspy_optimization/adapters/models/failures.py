"""What a model server's refusal means: which error of the tree, and what a person can do about it."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from dspy_optimization.errors import ModelAuthError, ModelBusyError, ModelError, ModelRequestError

RETRY_AFTER_CAP_SECONDS = 600.0
"""A server that asks for more is asked again after this long."""
DETAIL_CHARACTERS = 400

_SECRET = re.compile(r"(?i)\b(?:sk|pk|gsk|key|hf|xai|ope)[-_][A-Za-z0-9_\-*]{8,}|\bbearer\s+[^\s\"',}]+")
_OUT_OF_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_user_quota", "credit balance")

# What a server says of one request. Everything else below 500 (a model that is gone, another address) it would say of
# any request: taken for the fault of a candidate, it would score that candidate 0.
_ABOUT_THE_REQUEST = frozenset({400, 406, 411, 413, 414, 415, 422, 431, 451})


def scrub(text: str, secret: str | None = None) -> str:
    """Return the text without the given secret and without anything that looks like a key."""
    if secret:
        text = text.replace(secret, "***")
    return _SECRET.sub("***", text)


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return how long the server asked to wait, in [0, 600] seconds; None when it did not say or spoke nonsense.

    Reads `retry-after-ms`, and `retry-after` as seconds or as an HTTP date (RFC 9110, section 10.2.3).
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    seconds = milliseconds / 1000 if milliseconds is not None else _number(headers.get("retry-after"))
    if seconds is None:
        seconds = _seconds_until(headers.get("retry-after"), now)
    return None if seconds is None else min(max(seconds, 0.0), RETRY_AFTER_CAP_SECONDS)


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"\s*\d{1,12}(\.\d{1,9})?\s*", text) else None


def _seconds_until(text: str | None, now: datetime) -> float | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - now).total_seconds()


def said(body: str) -> str:
    """Return the server's own words out of an error body: OpenAI's, FastAPI's and vLLM's shapes, else its start."""
    try:
        value = json.loads(body)
    except ValueError:
        return _short(body)
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return _short(body)
    error = value.get("error", value)
    if not isinstance(error, dict):
        return _short(str(error))
    words = [str(error[name]) for name in ("message", "detail", "code", "type") if error.get(name)]
    return _short("; ".join(dict.fromkeys(words)) or body)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= DETAIL_CHARACTERS else flat[:DETAIL_CHARACTERS] + " …"


def refusal(status: int, detail: str, *, who: str, retry_after: float | None = None) -> ModelError:
    """Return the error for an HTTP status that is not success.

    Args:
        status: 300 to 599; 429 with a spent quota counts as a matter of credit, not of speed.
        detail: the server's words, already without secrets.
        who: model and place, for the message.
        retry_after: seconds the server asked for.
    """
    found = f"{who}: wanted an answer, found HTTP {status}" + (f" ({detail})" if detail else "")
    spent = status == 429 and any(mark in detail.lower() for mark in _OUT_OF_CREDIT)
    if status in (401, 403) or spent or status == 402:
        possible = "add credit to the account" if spent or status == 402 else "give a key that may use this model"
        return ModelAuthError(f"{found}; possible: {possible}, then resume")
    if status in (425, 429, 503, 529):
        asked = "" if retry_after is None else f"; the server asks to wait {retry_after:g} s"
        return ModelBusyError(
            f"{found}{asked}; possible: wait, or lower requests_per_minute, tokens_per_minute or max_concurrency",
            retry_after_seconds=retry_after,
        )
    if status in (408, 409) or status >= 500:
        return ModelError(
            f"{found}; possible: check the model server, then resume", retryable=True, retry_after_seconds=retry_after
        )
    if status < 400:
        return ModelError(f"{found}: a redirect, which is not followed; possible: give that address as base_url")
    if status in _ABOUT_THE_REQUEST:
        return ModelRequestError(f"{found}; possible: change what the message names, then start again")
    return ModelError(f"{found}; possible: change what the message names, then resume")
