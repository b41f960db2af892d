"""What a server's refusal means."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.adapters.models.failures import refusal, retry_after_seconds, said, scrub
from dspy_optimization.errors import ModelAuthError, ModelBusyError, ModelError, ModelRequestError

NOW = datetime(2026, 11, 6, 8, 49, 37, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (301, ModelError, False),
        (400, ModelRequestError, False),
        (401, ModelAuthError, False),
        (402, ModelAuthError, False),
        (403, ModelAuthError, False),
        (404, ModelError, False),
        (408, ModelError, True),
        (409, ModelError, True),
        (413, ModelRequestError, False),
        (422, ModelRequestError, False),
        (425, ModelBusyError, True),
        (429, ModelBusyError, True),
        (500, ModelError, True),
        (502, ModelError, True),
        (503, ModelBusyError, True),
        (504, ModelError, True),
        (529, ModelBusyError, True),
    ],
)
def test_every_status_has_its_error(status: int, kind: type[ModelError], retryable: bool) -> None:
    """The class, whether trying again may help, who was asked, what was found, what is possible."""
    error = refusal(status, "its words", who="model x", retry_after=3.0)

    assert (type(error), error.retryable) == (kind, retryable)
    assert all(part in str(error) for part in ("model x", str(status), "its words", "possible:"))


@pytest.mark.parametrize("detail", ["You exceeded your quota; insufficient_quota", "Your credit balance is too low"])
def test_a_spent_quota_is_no_matter_of_speed(detail: str) -> None:
    """OpenAI says 429 for it; waiting never helps."""
    assert type(refusal(429, detail, who="x")) is ModelAuthError


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "100000"}, 600.0),
        # The date of RFC 9110, section 5.6.7, in another year; NOW is 8:49:37.
        ({"retry-after": "Fri, 06 Nov 2026 08:50:07 GMT"}, 30.0),
        ({"retry-after": "Fri, 06 Nov 2026 08:50:07 -0000"}, 30.0),
        ({"retry-after": "Fri, 06 Nov 2020 08:49:37 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-5"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], expected: float | None) -> None:
    """Seconds, milliseconds or a date; at most ten minutes."""
    assert retry_after_seconds(headers, NOW) == expected


@given(text=st.text(max_size=40))
def test_any_retry_after_is_survived(text: str) -> None:
    """It comes from outside."""
    seconds = retry_after_seconds({"retry-after": text}, NOW)

    assert seconds is None or 0 <= seconds <= 600


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"error": {"message": "no", "code": "c", "type": null}}', "no; c"),
        ('{"error": "plain"}', "plain"),
        ('{"detail": "not found"}', "not found"),
        ('[{"error": {"message": "google"}}]', "google"),
        ('{"other": 1}', '{"other": 1}'),
        ("7", "7"),
        ("<html>\n  bad   gateway", "<html> bad gateway"),
        ("x" * 1000, "x" * 400 + " …"),
        ("", ""),
    ],
)
def test_the_servers_own_words_are_found(body: str, expected: str) -> None:
    """In whatever shape it speaks."""
    assert said(body) == expected


@pytest.mark.parametrize(
    "text", ["key sk-proj-abcdefgh1234 is wrong", "Authorization: Bearer abc.def.ghi", "my-own-secret is wrong"]
)
def test_no_key_survives(text: str) -> None:
    """Neither the one we know nor what looks like one."""
    clean = scrub(text, "my-own-secret")

    assert "***" in clean
    assert not any(part in clean for part in ("abcdefgh1234", "abc.def", "my-own-secret"))
