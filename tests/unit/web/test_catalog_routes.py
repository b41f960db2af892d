"""What is said of algorithms is what they are."""

import pytest

from web_world import Keyed

pytestmark = pytest.mark.xdist_group("service")


def test_what_becomes_of_several_objectives(keyed: Keyed) -> None:
    """All are weighed; only GEPA has an option that looks at one at a time, and the answer names it."""
    items = keyed.ask("/api/v1/algorithms/available").json()["items"]
    apart = {one["name"]: one["objectives_supported"] for one in items if "by itself" in one["objectives_supported"]}

    assert {"gepa": "any number, weighed into one score; each by itself too, as the option frontier says"} == apart
    assert {"any number, weighed into one score"} == {
        one["objectives_supported"] for one in items if one["name"] not in apart
    }
