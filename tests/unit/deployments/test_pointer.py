"""What is live, and every way it changes: one value each, or a refusal that leaves everything as it was."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from deployment_world import (
    BASELINE,
    NEWER,
    NEWEST,
    OLD,
    OPTIMIZED,
    PLAN,
    START,
    created,
    evidence_of_nothing,
    hours,
    leave,
    rolling,
    rollout_id,
    traffic,
    version,
)

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.deployments.approval import ApprovalId
from dspy_optimization.deployments.change import ENGINE, ChangeKind
from dspy_optimization.deployments.pointer import Pointer
from dspy_optimization.deployments.reading import pointer_from_json
from dspy_optimization.deployments.rollout import RolloutStatus, StopCause
from dspy_optimization.deployments.rollout_plan import rollout_plan
from dspy_optimization.errors import ConflictError, ExpiredError, InvalidRequestError, NotFoundError
from dspy_optimization.experiments.assignment import Override
from dspy_optimization.experiments.split import Split, Variant

V1, V2, V3 = BASELINE.checksum, OPTIMIZED.checksum, NEWEST.checksum


def promoted(pointer: Pointer, to: Any = OPTIMIZED, before: Any = BASELINE, at: float = 1.0) -> Pointer:
    """With all traffic on another version."""
    return pointer.promote(to, replaces=before, clearance=leave(to), actor="ana", reason="it is better", at=hours(at))


def at_hold_back(pointer: Pointer) -> Pointer:
    """Its rollout went on by hand to the last stage."""
    for _ in range(3):
        pointer = pointer.go_on("for the test", actor="ana", at=hours(1))
    return pointer


def held() -> Pointer:
    """Harm was found at the first stage."""
    look = evidence_of_nothing(is_harmful=True, p_harmful=0.001, n_optimized=30)
    return rolling().step(look, hours(1)).pointer


def completed() -> Pointer:
    """A rollout that came to its end."""
    look = evidence_of_nothing(as_of=hours(200), n_optimized=900)._replace(stage=3)
    return at_hold_back(rolling()).step(look, hours(200)).pointer


ON_V3 = promoted(promoted(created()), NEWEST, OPTIMIZED, 2.0)


def test_a_promotion_is_one_change() -> None:
    """With reason, actor, evidence, time and what it replaces."""
    after = promoted(created())
    change = after.changes[-1]

    assert (V2, None, 2) == (after.live, after.rollout, len(after.changes))
    assert (ChangeKind.PROMOTED, "ana", hours(1), V2, V1) == (
        change.kind, change.actor, change.at, change.live, change.replaces,
    )  # fmt: skip
    assert change.reason == f"{V2[:12]} gets all traffic at once, in place of {V1[:12]}: it is better"
    assert OPTIMIZED.evidence() == change.evidence


def test_a_rollout_is_one_change_a_stage() -> None:
    """Who is live changes with the last stage; the split is in the change."""
    after = completed()
    told = [(change.kind, change.live, change.replaces) for change in after.changes]
    split = [None if change.split is None else change.split.share for change in after.changes]

    assert [
        (ChangeKind.CREATED, V1, None),
        (ChangeKind.STARTED, V1, V1),
        (ChangeKind.RAISED, V1, V1),
        (ChangeKind.RAISED, V1, V1),
        (ChangeKind.RAISED, V2, V1),
        (ChangeKind.COMPLETED, V2, V1),
    ] == told
    assert [None, 0.01, 0.1, 0.5, 0.95, 1.0] == split
    assert (V2, None) == (after.live, after.rollout)
    assert after.changes[-1].actor == ENGINE
    assert "rollout" in after.changes[-1].evidence


def test_units_are_served_by_the_split_and_stay() -> None:
    """Who has the new version keeps it while the split rises; one in a hundred at first, all but 5 % in the end."""
    units = [f"user-{number}" for number in range(4_000)]
    pointer, before = rolling(), set[str]()
    for share in (0.01, 0.1, 0.5, 0.95):
        new = {unit for unit in units if pointer.answering(unit).version == V2}
        assert share == pytest.approx(len(new) / len(units), abs=0.02)
        assert before <= new
        before = new
        if share < 0.9:
            pointer = pointer.go_on("for the test", actor="ana", at=hours(1))

    assert {V2} == {completed().answering(unit).version for unit in units[:50]}
    assert {V1} == {held().answering(unit).version for unit in units[:50]}


def test_who_has_no_unit_id_gets_what_is_live() -> None:
    """Outside of the rollout; an override is served what it names."""
    last = at_hold_back(rolling())
    to_old = Override(attribute="team", values=frozenset({"office"}), variant=Variant.BASELINE)
    overridden = rolling(rollout_plan(traffic(overrides=(to_old,))))

    assert (V1, V2) == (rolling().answering(None).version, last.answering("").version)
    outside = last.answering(None).assignment
    assert outside is not None
    assert not outside.in_experiment
    assert (V1, None) == created().answering("user-1")
    assert V1 == at_hold_back(overridden).answering("user-1", {"team": "office"}).version
    with pytest.raises(InvalidRequestError, match="unit_id: wanted: text"):
        rolling().answering(7)


def test_harm_is_one_change_to_nobody() -> None:
    """Everybody has the version before, nothing may begin, and a person releases it."""
    pointer = held()
    released = pointer.release("the prompt is mended", actor="bo", at=hours(3))

    assert pointer.rollout is not None
    assert (V1, RolloutStatus.HELD, StopCause.HARM) == (pointer.live, pointer.rollout.status, pointer.rollout.cause)
    assert (ChangeKind.HELD, 0.0, ENGINE) == (
        pointer.changes[-1].kind, pointer.rollout.split.share, pointer.changes[-1].actor,
    )  # fmt: skip
    assert "look" in pointer.changes[-1].evidence
    assert pointer is pointer.step(evidence_of_nothing(), hours(9)).pointer
    with pytest.raises(ConflictError, match=r"to roll .* out; found: rollout .* is held at 0 %; allowed: release it"):
        pointer.begin(rollout_plan(traffic(2)), OPTIMIZED, clearance=leave(), actor="ana", at=hours(2))
    assert (None, ChangeKind.RELEASED) == (released.rollout, released.changes[-1].kind)


def test_another_try_needs_an_id_of_its_own() -> None:
    """So that its units are drawn afresh."""
    released = held().release("mended", actor="bo", at=hours(3))
    again = released.begin(rollout_plan(traffic(2)), OPTIMIZED, clearance=leave(), actor="ana", at=hours(4))

    assert again.rollout is not None
    assert rollout_id(2) == again.rollout.id
    with pytest.raises(ConflictError, match="a rollout with an id of its own"):
        released.begin(PLAN, OPTIMIZED, clearance=leave(), actor="ana", at=hours(4))


def test_of_two_promotions_at_once_the_second_is_refused() -> None:
    """Whichever kinds they are; the state is what the first one left."""
    started, live = rolling(), promoted(created())
    other = version(OLD, NEWER)
    before = json.dumps(started.to_json()), json.dumps(live.to_json())

    with pytest.raises(ConflictError, match=r"to roll .* out; found: rollout .* is running at 1 %; allowed: wait"):
        started.begin(rollout_plan(traffic(2)), OPTIMIZED, clearance=leave(), actor="bo", at=hours(1))
    with pytest.raises(ConflictError, match=r"to promote .*; found: rollout .* is running"):
        promoted(started)
    with pytest.raises(ConflictError, match=rf"to replace {V1[:12]}; found: {V2[:12]} is live since 2026"):
        promoted(live, other, BASELINE, 2.0)
    with pytest.raises(ConflictError, match="it is live since"):
        promoted(live, OPTIMIZED, BASELINE, 2.0)
    plan = rollout_plan(traffic(2, optimized=other.checksum))
    with pytest.raises(ConflictError, match=f"a rollout from {V1[:12]}; found: {V2[:12]} is live"):
        live.begin(plan, other, clearance=leave(other), actor="bo", at=hours(2))
    assert before == (json.dumps(started.to_json()), json.dumps(live.to_json()))


def test_only_what_was_validated_is_deployed() -> None:
    """A baseline is not, nor what was better than something else, nor what is another agent's."""
    elsewhere = replace(OPTIMIZED, config=replace(OPTIMIZED.config, name="sales"))

    with pytest.raises(InvalidRequestError, match=r"a validated version; found: .* a baseline that nothing was proven"):
        ON_V3.promote(BASELINE, replaces=NEWEST, clearance=leave(), actor="ana", reason="back", at=hours(3))
    with pytest.raises(InvalidRequestError, match="validated against another baseline; possible: a rollout"):
        promoted(created(), NEWEST, BASELINE)
    with pytest.raises(InvalidRequestError, match="a version of support; found: one of sales"):
        promoted(created(), elsewhere)
    with pytest.raises(InvalidRequestError, match="wanted: the plan of"):
        created().begin(PLAN, NEWEST, clearance=leave(NEWEST), actor="ana", at=START)


def test_leave_is_for_one_version_in_one_place_and_time() -> None:
    """And an approval for one deployment."""
    approval = ApprovalId(UUID(int=5))
    granted = replace(leave(), approval_id=approval, until=hours(2))
    back = (
        created()
        .promote(OPTIMIZED, replaces=BASELINE, clearance=granted, actor="ana", reason="better", at=hours(1))
        .roll_back("slow", actor="ana", at=hours(1))
    )

    for wrong in (leave(NEWEST), leave(environment="staging")):
        with pytest.raises(ConflictError, match="wanted: leave to deploy"):
            created().begin(PLAN, OPTIMIZED, clearance=wrong, actor="ana", at=START)
    with pytest.raises(ExpiredError, match="that is valid; found: it expired"):
        created().begin(PLAN, OPTIMIZED, clearance=granted, actor="ana", at=hours(2))
    with pytest.raises(ConflictError, match="an approval that was not used"):
        back.begin(PLAN, OPTIMIZED, clearance=granted, actor="ana", at=hours(1))


@pytest.mark.parametrize(
    ("pointer", "to"),
    [
        (promoted(created()), V1),
        (ON_V3, V2),
        (ON_V3.roll_back("slow", actor="ana", at=hours(3)), V1),
        (ON_V3.revert(V1, "slow", actor="ana", at=hours(3)).undo("no", actor="ana", at=hours(4)), None),
        (rolling(), V1),
        (at_hold_back(rolling()), V1),
        (completed(), V1),
    ],
)
def test_a_rollback_goes_back_one_version(pointer: Pointer, to: Fingerprint | None) -> None:
    """What was gone back from is behind; a rollout under way is what is gone back from."""
    if to is None:
        to = pointer.previous
        assert to is not None
    back = pointer.roll_back("slow", actor="ana", at=hours(300))

    assert (to, None, ChangeKind.ROLLED_BACK) == (back.live, back.rollout, back.changes[-1].kind)
    assert len(pointer.changes) + 1 == len(back.changes)
    assert back.changes[-1].reason == f"Back to {to[:12]} from {(V2 if pointer.rollout else pointer.live)[:12]}: slow"


def test_an_alarm_holds_the_rollout() -> None:
    """Nothing new begins before a person has looked; without a rollout it goes back one version."""
    alarmed = at_hold_back(rolling()).roll_back(
        "quality fell to .7", actor=ENGINE, at=hours(5), cause=StopCause.ALARM, evidence={"monitor": "quality"}
    )
    later = completed().roll_back("quality fell", actor=ENGINE, at=hours(300), cause=StopCause.ALARM)

    assert alarmed.rollout is not None
    assert (V1, RolloutStatus.HELD, ChangeKind.HELD) == (
        alarmed.live, alarmed.rollout.status, alarmed.changes[-1].kind,
    )  # fmt: skip
    assert "quality" == alarmed.changes[-1].evidence["monitor"]
    assert (V1, ChangeKind.HELD) == (later.live, later.changes[-1].kind)


def test_a_rollback_with_nothing_to_go_back_to_is_refused() -> None:
    """At the first version, after everything was gone back from, and when it was done already."""
    with pytest.raises(ConflictError, match=f"nothing to go back to, {V1[:12]} is the first version here; allowed"):
        created().roll_back("slow", actor="ana", at=hours(1))
    with pytest.raises(ConflictError, match="nothing to go back to"):
        promoted(created()).roll_back("slow", actor="ana", at=hours(2)).roll_back("slow", actor="ana", at=hours(3))
    with pytest.raises(ConflictError, match=r"is held, and everybody has .* already; allowed: release it"):
        held().roll_back("slow", actor="ana", at=hours(2))


def test_any_earlier_version_is_one_step_away() -> None:
    """Also while a rollout is under way, which ends with it."""
    back = ON_V3.revert(V1, "the newest are rude", actor="ana", at=hours(3))
    plan = rollout_plan(traffic(3, before=V3, optimized=OPTIMIZED.checksum))
    busy = ON_V3.begin(plan, OPTIMIZED, clearance=leave(), actor="ana", at=hours(3))
    ended = busy.revert(V1, "all of them are rude", actor="ana", at=hours(4))

    assert (V1, V3, ChangeKind.REVERTED) == (back.live, back.changes[-1].replaces, back.changes[-1].kind)
    assert (V1, V3, V2) == back.versions
    assert (V1, None) == (ended.live, ended.rollout)
    assert Split(buckets=0) == ended.changes[-1].split
    with pytest.raises(NotFoundError, match="wanted: a version that was live here; found: nowhere; possible: "):
        ON_V3.revert(Fingerprint("nowhere"), "why", actor="ana", at=hours(3))
    with pytest.raises(ConflictError, match=r"to revert to .*; found: it is live; allowed: another one of"):
        ON_V3.revert(V3, "why", actor="ana", at=hours(3))


def test_the_newest_change_is_taken_back() -> None:
    """A whole rollout counts as one; undoing is undone too."""
    undone = ON_V3.undo("too early", actor="ana", at=hours(3))
    redone = undone.undo("not at all", actor="ana", at=hours(4))
    stopped = at_hold_back(rolling()).undo("too early", actor="ana", at=hours(3))

    assert (V2, V3) == (undone.live, redone.live)
    assert V1 == completed().undo("not worth it", actor="ana", at=hours(300)).live
    assert (V1, None, ChangeKind.UNDONE) == (stopped.live, stopped.rollout, stopped.changes[-1].kind)


def test_a_rollout_that_has_ended_is_not_resumed() -> None:
    """Nor is there anything before the first version."""
    with pytest.raises(ConflictError, match="nothing was live before"):
        created().undo("why", actor="ana", at=hours(1))
    with pytest.raises(ConflictError, match=r"a rollout is not resumed.*; allowed: release it"):
        held().undo("why", actor="ana", at=hours(2))
    for ended in (
        held().release("mended", actor="bo", at=hours(2)),
        rolling().roll_back("slow", actor="ana", at=hours(2)),
        rolling().undo("slow", actor="ana", at=hours(2)),
    ):
        with pytest.raises(ConflictError, match=r"a rollout is not resumed.*; allowed: another rollout"):
            ended.undo("why", actor="ana", at=hours(3))


REFUSED: list[Callable[[Pointer], Any]] = [
    lambda pointer: pointer.go_on("why", actor="ana", at=hours(1)),
    lambda pointer: pointer.release("why", actor="ana", at=hours(1)),
    lambda pointer: pointer.roll_back(" ", actor="ana", at=hours(1)),
    lambda pointer: pointer.roll_back("why", actor="ana", at=START - timedelta(seconds=1)),
    lambda pointer: pointer.roll_back("why", actor="ana", at=hours(1).replace(tzinfo=None)),
]


@pytest.mark.parametrize("change", REFUSED)
def test_what_does_not_fit_is_refused(change: Callable[[Pointer], Any]) -> None:
    """No rollout, no reason, a clock that goes back, no time zone."""
    with pytest.raises(InvalidRequestError, match=r"wanted: .*; found: .*; (possible|allowed): "):
        change(promoted(created(), at=0.0))


@pytest.mark.parametrize("pointer", [created(), ON_V3, rolling(), held(), completed(), at_hold_back(rolling())])
def test_it_is_kept_as_json_with_its_history(pointer: Pointer) -> None:
    """And read back equal."""
    assert pointer == pointer_from_json(json.loads(json.dumps(pointer.to_json(), allow_nan=False)))


def test_what_is_no_pointer_is_not_read() -> None:
    """Another format, a field too many."""
    data = created().to_json()
    with pytest.raises(InvalidRequestError, match="pointer: wanted: version 1; found: 2"):
        pointer_from_json({**data, "version": 2})
    with pytest.raises(InvalidRequestError, match="is no known key"):
        pointer_from_json({**data, "color": "red"})
    with pytest.raises(InvalidRequestError, match="at least the change that created it"):
        pointer_from_json({**data, "changes": []})
