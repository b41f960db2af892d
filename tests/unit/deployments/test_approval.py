"""When a person has to agree, who may, and until when it counts."""

import json
from typing import Any
from uuid import UUID

import pytest
from deployment_world import BASELINE, OPTIMIZED, PRODUCTION, SAFETY, SOLVED, START, hours, version

from dspy_optimization.deployments.approval import (
    Approval,
    ApprovalId,
    ApprovalPolicy,
    ApprovalStatus,
    Clearance,
    Impact,
    clear,
    impact_of,
)
from dspy_optimization.errors import ConflictError, ExpiredError, InvalidRequestError
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole, Principal

ID = ApprovalId(UUID(int=7))
ANA = Principal(tenant=LOCAL_TENANT, name="ana", role=AccessRole.ADMINISTRATOR)
BO = Principal(tenant=LOCAL_TENANT, name="bo", role=AccessRole.ADMINISTRATOR)
CY = Principal(tenant=LOCAL_TENANT, name="cy", role=AccessRole.RESEARCHER)
POLICY = ApprovalPolicy(environments=frozenset({PRODUCTION}))


def impact(of: Any = OPTIMIZED, **said: Any) -> Impact:
    """Of the optimized version in production."""
    return impact_of(of, (SOLVED, SAFETY), **({"environment": PRODUCTION} | said))


ASKED = Approval.ask(POLICY, impact(), ID, asked_by="ana", at=START)


def test_nobody_is_asked_where_no_policy_asks() -> None:
    """Then nothing is needed, and asking is refused."""
    leave = clear(ApprovalPolicy(), impact(), None, at=START)

    assert (OPTIMIZED.checksum, PRODUCTION, None, None) == (
        leave.checksum, leave.environment, leave.until, leave.approval_id,
    )  # fmt: skip
    with pytest.raises(ConflictError, match="something a person has to agree with; found: nothing"):
        Approval.ask(ApprovalPolicy(), impact(), ID, asked_by="ana", at=START)


@pytest.mark.parametrize(
    ("policy", "said", "version_said", "point"),
    [
        ({"environments": frozenset({PRODUCTION})}, {}, {}, "every deployment in production needs one"),
        ({"environments": frozenset({PRODUCTION})}, {"environment": "staging"}, {}, None),
        ({}, {"is_asked_for": True}, {}, "the request of the optimization asks"),
        ({"units_per_day": 1_000.0}, {"units_per_day": 1_000.0}, {}, "1,000 units a day, from 1,000 on"),
        ({"units_per_day": 1_000.0}, {"units_per_day": 999.0}, {}, None),
        ({"units_per_day": 1_000.0}, {}, {}, "the traffic is not known"),
        (
            {"cost_change": 0.2},
            {},
            {"cost_before": 0.01, "cost_after": 0.013},
            "an answer costs +0.3 of the baseline's",
        ),
        ({"cost_change": 0.2}, {}, {"cost_before": 0.01, "cost_after": 0.011}, None),
        ({"cost_change": 0.0}, {}, {"cost_before": 0.01, "cost_after": 0.005}, None),
        ({"cost_change": 0.2}, {}, {"cost_before": 0.0, "cost_after": 0.01}, "something where it was nothing"),
        ({"guardrail_change": 0.05}, {}, {"safety_before": 1.0, "safety_after": 0.9}, "safety is worse by +0.1 of"),
        ({"guardrail_change": 0.05}, {}, {"safety_before": 1.0, "safety_after": 0.99}, None),
        ({"guardrail_change": 0.05}, {}, {"safety_before": 0.9, "safety_after": 1.0}, None),
    ],
)
def test_impact_decides(
    policy: dict[str, Any], said: dict[str, Any], version_said: dict[str, float], point: str | None
) -> None:
    """Traffic, cost, guardrails, environment, and what the request asks for."""
    found = ApprovalPolicy(**policy).points(impact(version(**version_said), **said))

    assert ([] if point is None else [True]) == [point is not None and point in one for one in found]


def test_a_baseline_has_no_impact() -> None:
    """Nothing is known of it, and it is not deployed."""
    with pytest.raises(InvalidRequestError, match="wanted: a validated result; found: none, it is a baseline"):
        impact(BASELINE)


def test_a_granted_one_clears_until_it_expires() -> None:
    """And not a moment longer."""
    granted = ASKED.grant(BO, at=hours(1), because="seen")
    leave = clear(POLICY, impact(), granted, at=hours(71.9))

    assert (ID, "bo", hours(72)) == (leave.approval_id, leave.approved_by, leave.until)
    with pytest.raises(ExpiredError, match="an approval that is still valid; found: it expired"):
        clear(POLICY, impact(), granted, at=hours(72))


def test_what_was_not_granted_does_not_clear() -> None:
    """The message says why one is needed, and what is possible."""
    refused = ASKED.refuse(BO, "not before the holidays", at=hours(1))
    elsewhere = Approval.ask(
        ApprovalPolicy(environments=frozenset({"staging"})), impact(environment="staging"), ID, asked_by="ana", at=START
    ).grant(BO, at=hours(1))

    with pytest.raises(ConflictError, match="because every deployment in production needs one; found: none; allowed"):
        clear(POLICY, impact(), None, at=START)
    with pytest.raises(ConflictError, match="found: it is waiting; allowed: wait"):
        clear(POLICY, impact(), ASKED, at=START)
    with pytest.raises(ConflictError, match="found: it is refused by bo: not before the holidays; allowed: ask again"):
        clear(POLICY, impact(), refused, at=hours(2))
    with pytest.raises(ConflictError, match=r"wanted: an approval of it; found: one of .* in staging"):
        clear(POLICY, impact(), elsewhere, at=hours(2))


@pytest.mark.parametrize(
    ("policy", "who", "may"),
    [
        ({}, BO, True),
        ({}, CY, False),
        ({}, ANA, False),
        ({"may_approve_own": True}, ANA, True),
        ({"roles": frozenset({AccessRole.RESEARCHER})}, CY, True),
        ({"names": frozenset({"dee"})}, BO, False),
        ({"names": frozenset({"bo"})}, BO, True),
    ],
)
def test_who_may(policy: dict[str, Any], who: Principal, may: bool) -> None:
    """Those of the role and the name, but not who asked."""
    asked = Approval.ask(
        ApprovalPolicy(environments=frozenset({PRODUCTION}), **policy), impact(), ID, asked_by="ana", at=START
    )

    assert may is asked.may(who)
    if may:
        assert ApprovalStatus.GRANTED is asked.grant(who, at=hours(1)).status
    else:
        with pytest.raises(ConflictError, match=f"somebody who may answer; found: {who.name}"):
            asked.grant(who, at=hours(1))


def test_an_answer_is_final_and_in_time() -> None:
    """Granted is not refused later, and nobody answers what has expired."""
    with pytest.raises(ConflictError, match="found: bo granted it; allowed: nothing, it is final"):
        ASKED.grant(BO, at=hours(1)).refuse(BO, "after all", at=hours(2))
    with pytest.raises(ExpiredError, match="an answer before"):
        ASKED.grant(BO, at=hours(72))
    with pytest.raises(InvalidRequestError, match="because: wanted: text"):
        ASKED.refuse(BO, " ", at=hours(1))


def test_leave_is_not_made_by_hand() -> None:
    """Only `clear` makes it."""
    with pytest.raises(TypeError, match="found: one made by hand"):
        Clearance(
            agent="support",
            checksum=OPTIMIZED.checksum,
            environment=PRODUCTION,
            until=None,
            approval_id=None,
            approved_by=None,
            seal=None,
        )


@pytest.mark.parametrize("approval", [ASKED, ASKED.grant(BO, at=hours(1)), ASKED.refuse(BO, "no", at=hours(1))])
def test_it_is_kept_as_json_with_the_answer(approval: Approval) -> None:
    """And read back equal."""
    assert approval == Approval.from_json(json.loads(json.dumps(approval.to_json())))


@pytest.mark.parametrize("wrong", [{"cost_change": -0.1}, {"units_per_day": float("nan")}, {"expires_hours": 0.0}])
def test_a_policy_has_bounds(wrong: dict[str, float]) -> None:
    """And says them."""
    with pytest.raises(InvalidRequestError, match=f"approvals: {next(iter(wrong))}: wanted: "):
        ApprovalPolicy(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="at least one role"):
        ApprovalPolicy(roles=frozenset())
