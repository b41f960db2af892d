"""What requests and answers about registered algorithms hold."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from dspy_optimization.algorithms.custom import CustomAlgorithm
from dspy_optimization.algorithms.rules import Outcome, RuleFinding
from dspy_optimization.web.answers import Answer
from dspy_optimization.web.schemas import Request


class CustomAlgorithmIn(Request):
    """Which installed class is to be an algorithm."""

    entrypoint: Annotated[str, StringConstraints(min_length=3, max_length=300)] = Field(
        description="`module:Class`, on the list `allow: algorithms` of the owner of the engine.",
        examples=["my_search:Mine"],
    )
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = Field(
        default=None, description="How requests will call it; what it calls itself if not given.", examples=["mine"]
    )


class RuleFindingOut(Answer):
    """One rule of the contract of algorithms, and whether it is kept."""

    rule: str
    outcome: Outcome
    wanted: str
    found: str
    possible: str


class CustomAlgorithmOut(Answer):
    """A registered algorithm."""

    name: str
    entrypoint: str
    version: str = Field(description="Of the code that was checked; other code is refused.")
    registered_at: datetime
    problem: str | None = Field(description="Why it cannot be used now; null when it can.")
    checks: list[RuleFindingOut]


def finding_out(one: RuleFinding) -> RuleFindingOut:
    """Return the answer."""
    return RuleFindingOut(rule=one.rule, outcome=one.outcome, wanted=one.wanted, found=one.found, possible=one.possible)


def algorithm_out(one: CustomAlgorithm, problem: str | None) -> CustomAlgorithmOut:
    """Return the answer."""
    return CustomAlgorithmOut(
        name=one.name,
        entrypoint=one.entrypoint,
        version=one.version,
        registered_at=one.registered_at,
        problem=problem,
        checks=[finding_out(finding) for finding in one.findings],
    )
