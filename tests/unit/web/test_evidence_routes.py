"""Evidence over HTTP: the same as the whole report says, read in parts, and sent once to who keeps it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dspy_optimization.adapters.report.facts import Report, collect, report
from dspy_optimization.events import Event, EventType
from dspy_optimization.optimization.request import OptimizationStatus as Status
from evidence_world import ACCURACY, COST, NOON, Kept, keep, stores_of
from web_world import Keyed

pytestmark = pytest.mark.xdist_group("service")

PAGES = (
    "/candidates", "/candidates?limit=3", "/diff", "/curve", "/examples", "/lineage", "/report",
)  # fmt: skip


def recent() -> datetime:
    return datetime.now(UTC) - timedelta(days=1)


@pytest.fixture(scope="module")
def ended(keyed: Keyed) -> Kept:
    return keep(keyed.database, ended=recent())


@pytest.fixture(scope="module")
def going_on(keyed: Keyed) -> Kept:
    return keep(keyed.database, objectives=(ACCURACY, COST), status=Status.RUNNING, seed=5)


def base(kept: Kept) -> str:
    return f"/api/v1/optimizations/{kept.id}"


def whole(keyed: Keyed, kept: Kept) -> Report:
    return report(collect(stores_of(keyed.database), kept.id), NOON)


def every(keyed: Keyed, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = keyed.ask(f"{path}?limit=7{cursor}").json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = f"&cursor={page['next_cursor']}"


@pytest.mark.parametrize("which", ["ended", "going_on"])
def test_parts_say_what_the_report_says(keyed: Keyed, which: str, request: pytest.FixtureRequest) -> None:
    """Candidates, curve, difference, examples, lineage; with a result, and while it runs."""
    kept: Kept = request.getfixturevalue(which)
    made = whole(keyed, kept)
    assert made.chosen is not None
    assert made.baseline is not None
    assert made.examples is not None
    candidates, examples = every(keyed, f"{base(kept)}/candidates"), every(keyed, f"{base(kept)}/examples")
    curve = keyed.ask(f"{base(kept)}/curve").json()
    diff = keyed.ask(f"{base(kept)}/diff").json()
    lineage = keyed.ask(f"{base(kept)}/lineage").json()

    assert [one.candidate.fingerprint for one in kept.trials] == [one["candidate"] for one in candidates]
    assert [one.score for one in kept.trials] == [one["score"] for one in candidates]
    assert {made.chosen.fingerprint} == {one["candidate"] for one in candidates if one["is_chosen"]}
    assert {made.baseline.fingerprint} == {one["candidate"] for one in candidates if one["is_baseline"]}
    assert [list(one.candidate.parents) for one in kept.trials] == [one["parents"] for one in candidates]
    assert [(one.candidate, one.complete) for one in made.curves.points] == [
        (one["candidate"], one["complete"]) for one in curve["points"]
    ]
    assert [one.candidate for one in made.curves.best] == [one["candidate"] for one in curve["best"]]
    assert (made.baseline.fingerprint, made.chosen.fingerprint) == (diff["from"], diff["to"])
    assert [one.example.id for one in (*made.examples.worse, *made.examples.better)] == [
        one["example_id"] for one in examples
    ]
    assert [(one.fingerprint, one.generation, one.chosen) for one in made.family] == [
        (one["id"], one["generation"], one["is_chosen"]) for one in lineage["nodes"]
    ]


def test_what_is_not_shown_is_not_read(keyed: Keyed) -> None:
    """A trial whose answers nobody can read is in the way of no page that does not show them."""
    kept = keep(keyed.database, ended=recent(), parts=0.0, chosen=5)
    shown = {kept.trials[0].candidate.fingerprint, kept.trials[5].candidate.fingerprint}
    with psycopg.connect(keyed.url) as connection:
        connection.execute(
            "UPDATE trial SET document = json_build_object('version', 1, 'noun', json_build_object('candidate',"
            " document -> 'noun' -> 'candidate', 'iteration', iteration, 'paid_calls', paid_calls,"
            " 'results', array_fill(null::text, array[n_results])))"
            " WHERE optimization_id = %s AND candidate <> ALL (%s)",
            [kept.id, list(shown)],
        )
    found = {path: keyed.ask(base(kept) + path).status_code for path in PAGES}

    assert {**dict.fromkeys(PAGES, 200), "/report": 503} == found


def test_a_candidate_by_the_beginning_of_its_name(keyed: Keyed, ended: Kept) -> None:
    """One that fits is enough; none, and several, are told apart; what a name cannot hold is no defect."""
    name = ended.trials[3].candidate.fingerprint
    found = keyed.ask(f"{base(ended)}/candidates/{name[:10]}").json()
    refused = [keyed.ask(f"{base(ended)}/candidates/{one}") for one in ("zz", "%25", "_", "%00")]
    letter = next(
        one for one in "0123456789abcdef"
        if len({t.candidate.fingerprint for t in ended.trials if t.candidate.fingerprint.startswith(one)}) > 1
    )  # fmt: skip
    several = keyed.ask(f"{base(ended)}/candidates/{letter}")

    assert name == found["candidate"]
    assert "Variant 3." in found["components"]["self"]["instructions"]
    assert [404] * 4 == [one.status_code for one in refused]
    assert [True] * 4 == ["found: none" in one.json()["detail"] for one in refused]
    assert (404, True) == (several.status_code, "found: several" in several.json()["detail"])
    assert name[:10] in keyed.ask(f"{base(ended)}/diff?to={name[:10]}").json()["to"]


def test_the_log_goes_both_ways(keyed: Keyed, ended: Kept) -> None:
    """From the beginning after an id, from the end before one; a page at a time."""
    forward = [one["id"] for one in keyed.ask(f"{base(ended)}/log").json()["items"]]
    backward = [one["id"] for one in keyed.ask(f"{base(ended)}/log?sort=-id").json()["items"]]
    last = keyed.ask(f"{base(ended)}/log?sort=-id&limit=2").json()["items"]
    older = keyed.ask(f"{base(ended)}/log?sort=-id&limit=2&before={last[-1]['id']}").json()["items"]
    between = keyed.ask(f"{base(ended)}/log?after={forward[0]}&before={forward[-1]}").json()["items"]

    assert sorted(forward) == forward
    assert list(reversed(forward)) == backward
    assert backward[:4] == [one["id"] for one in (*last, *older)]
    assert forward[1:-1] == [one["id"] for one in between]
    assert 422 == keyed.ask(f"{base(ended)}/log?sort=at").status_code
    assert 422 == keyed.ask(f"{base(ended)}/log?before={2**63}").status_code


@pytest.mark.parametrize("page", [*PAGES, "/artifact"])
def test_who_has_what_is_final_is_not_sent_it_again(keyed: Keyed, ended: Kept, page: str) -> None:
    """304 without a body for the tag that came with it; the bytes for another."""
    first = keyed.ask(base(ended) + page)
    tag = first.headers["etag"]
    again = keyed.ask(base(ended) + page)
    same = [
        keyed.ask(base(ended) + page, headers={"If-None-Match": given})
        for given in (tag, f'"x", {tag}', f"W/{tag}", "*")
    ]
    other = keyed.ask(base(ended) + page, headers={"If-None-Match": '"x"'})

    assert (first.content, tag) == (again.content, again.headers["etag"])
    assert tag.startswith('"')
    assert [(304, b"", tag)] * 4 == [(one.status_code, one.content, one.headers["etag"]) for one in same]
    assert (200, first.content) == (other.status_code, other.content)
    assert "private" in first.headers["cache-control"]


def test_tags_are_of_one_answer(keyed: Keyed, ended: Kept) -> None:
    """Another page, another optimization, or anything that happens later has another tag."""
    tags = [keyed.ask(base(ended) + page).headers["etag"] for page in PAGES]
    twin = keep(keyed.database, ended=recent())
    before = keyed.ask(f"{base(twin)}/report").headers["etag"]
    tell_of_tracking(keyed, twin)

    assert len(PAGES) == len(set(tags))
    assert before not in tags
    assert before != keyed.ask(f"{base(twin)}/report").headers["etag"]


def tell_of_tracking(keyed: Keyed, kept: Kept) -> None:
    stores_of(keyed.database).events.emit(
        Event(type=EventType.TRACKING_FAILED, optimization_id=kept.id, at=NOON, data={"error": "away"})
    )


def test_what_goes_on_has_no_tag(keyed: Keyed, going_on: Kept) -> None:
    """It would be wrong at the next trial."""
    found = [keyed.ask(base(going_on) + page, headers={"If-None-Match": "*"}) for page in PAGES]

    assert [(200, None)] * len(PAGES) == [(one.status_code, one.headers.get("etag")) for one in found]


def test_a_tag_opens_nothing(keyed: Keyed, ended: Kept) -> None:
    """Another tenant, and who has no key, are not told that something is there."""
    tag = keyed.ask(f"{base(ended)}/curve").headers["etag"]
    other = keyed.ask(f"{base(ended)}/curve", "other", headers={"If-None-Match": tag})
    nobody = keyed.service.client.get(f"{base(ended)}/curve", headers={"If-None-Match": tag})

    assert (404, 401) == (other.status_code, nobody.status_code)
