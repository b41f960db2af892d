"""Text and JSON that PostgreSQL would refuse."""

import json

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.adapters.postgres.escaping import escape, from_text, to_text, unescape
from dspy_optimization.errors import InvalidRequestError

hostile = st.text(st.one_of(st.sampled_from("\x00\x1a\ud800\udfff\\u0a1"), st.characters()), max_size=20)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | hostile,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hostile, inner, max_size=4),
    max_leaves=12,
)


@given(hostile)
def test_text_comes_back(text: str) -> None:
    """Escaping is reversible, also of what looks escaped already."""
    assert text == unescape(escape(text))


@given(values)
def test_json_comes_back_in_order(value: object) -> None:
    """Same value, same order of keys."""
    assert json.dumps(value) == json.dumps(from_text(to_text(value)))
    assert json.dumps(value) == json.dumps(from_text(to_text(value).encode()))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values, text=hostile)
def test_postgres_takes_it(postgres: EmbeddedPostgres, value: object, text: str) -> None:
    """The server keeps every value as json and every text as text; jsonb takes both, but turns 1e16 into an integer."""
    with psycopg.connect(postgres.url_of("postgres")) as connection:
        row = connection.execute("SELECT %s::json::text, %s::text", [to_text([value]), escape(text)]).fetchone()
        searchable = connection.execute("SELECT %s::jsonb::text", [to_text([value, text])]).fetchone()

    assert row is not None
    assert searchable is not None
    assert (json.dumps([value]), text) == (json.dumps(from_text(row[0])), unescape(row[1]))
    assert text == from_text(searchable[0])[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), object()])
def test_what_is_no_json_is_refused(value: object) -> None:
    """Nobody could read it back."""
    with pytest.raises(InvalidRequestError, match=r"kept as JSON; found: .*(not JSON compliant|not JSON serializable)"):
        to_text({"score": [value]})
