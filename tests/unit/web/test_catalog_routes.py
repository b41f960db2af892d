"""What is said of algorithms is what they are."""

import pytest

from web_world import Keyed

pytestmark = pytest.mark.xdist_group("service")


def test_what_becomes_of_several_objectives(keyed: Keyed) -> None:
    """Most weigh them; genetic keeps them apart, GEPA by an option that the answer names."""
    items = keyed.ask("/api/v1/algorithms/available").json()["items"]
    apart = {one["name"]: one["objectives_supported"] for one in items if "by itself" in one["objectives_supported"]}

    assert {
        "genetic": "any number, each by itself: candidates are compared by which others they dominate",
        "gepa": "any number, weighed into one score; each by itself too, as the option frontier says",
    } == apart
    assert {"any number, weighed into one score"} == {
        one["objectives_supported"] for one in items if one["name"] not in apart
    }


@pytest.mark.parametrize(("who", "shows"), [("viewer", False), ("researcher", False), ("administrator", True)])
def test_where_models_are_is_for_operators(keyed: Keyed, who: str, shows: bool) -> None:
    """Everybody sees which model it is."""
    items = keyed.ask("/api/v1/models", who).json()["items"]

    assert {"http://127.0.0.1:9/v1" if shows else None} == {one["base_url"] for one in items}
    assert {"fake"} == {one["model"] for one in items}


@pytest.mark.parametrize(("who", "shows"), [("researcher", False), ("administrator", True)])
def test_a_model_that_does_not_answer_says_where_it_is_to_operators(keyed: Keyed, who: str, shows: bool) -> None:
    """What went wrong is said to everybody who may ask it."""
    told = keyed.ask("/api/v1/models/task/test", who, "POST").json()

    assert (False, shows) == (told["ok"], "127.0.0.1" in told["error"])
    assert "model fake at " in told["error"]
    assert "possible: " in told["error"]
