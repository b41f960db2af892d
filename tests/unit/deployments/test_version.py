"""What may be deployed, and that what was approved is what answers."""

from dataclasses import replace
from typing import Any

import pytest
from deployment_world import BASE, BASELINE, CONFIG, NEW, NEWER, OLD, OPTIMIZATION, OPTIMIZED, hours, result, validated

from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.config import Component
from dspy_optimization.agents.loading import agent_from_json
from dspy_optimization.deployments.version import ChangedContentError, Version, verified
from dspy_optimization.errors import InfrastructureError, InvalidRequestError
from dspy_optimization.statistics import Verdict


def test_an_improvement_makes_a_version() -> None:
    """Its checksum is the agent version it also has elsewhere; its evidence is told in numbers."""
    made = Version.optimized(result(), CONFIG)
    told = made.evidence()

    assert OPTIMIZED == made
    assert CONFIG.version == made.checksum
    assert ("support", str(OPTIMIZATION), "improved", "solved", 100) == (
        made.agent, told["optimization_id"], told["verdict"], told["metric"], told["n_examples"],
    )  # fmt: skip
    assert 0.4 == pytest.approx(told["difference"])


@pytest.mark.parametrize("right", [(80, 80), (80, 40), (40, 43)])
def test_only_an_improvement_does(right: tuple[int, int]) -> None:
    """The message says what was found instead."""
    said = validated(right=right)

    assert Verdict.IMPROVED is not said.verdict
    with pytest.raises(InvalidRequestError, match=f"the verdict improved; found: {said.verdict.value}: "):
        Version.optimized(result(validated=said), CONFIG)
    with pytest.raises(InvalidRequestError, match="the verdict improved"):
        replace_version(validated=said)


def replace_version(**changed: Any) -> Version:
    """The optimized version with other fields."""
    fields: dict[str, Any] = {
        "config": CONFIG,
        "candidate": NEW.fingerprint,
        "created_at": hours(0),
        "optimization_id": OPTIMIZATION,
        "validated": validated(),
    }
    return Version(**(fields | changed))


def test_what_was_never_validated_makes_none() -> None:
    """It ended before the sealed split was measured."""
    with pytest.raises(InvalidRequestError, match=r"found: none, optimization .* \(max_cost_usd\)"):
        Version.optimized(result(validated=None, ended_because="max_cost_usd"), CONFIG)


@pytest.mark.parametrize("config", [BASE, BASE.with_candidate(NEWER), replace(CONFIG, adapter="json")])
def test_another_configuration_is_none_of_it(config: Any) -> None:
    """Neither the baseline, nor another candidate, nor one with other settings."""
    with pytest.raises(InvalidRequestError, match=r"wanted: the configuration .* that optimization"):
        Version.optimized(result(), config)


def test_evidence_and_optimization_come_together_and_of_the_candidate() -> None:
    """Half of it is a defect."""
    with pytest.raises(InvalidRequestError, match="found: one of the two"):
        replace_version(optimization_id=None)
    with pytest.raises(InvalidRequestError, match="the candidate that was validated"):
        replace_version(candidate=OLD.fingerprint)
    assert (None, {}) == (BASELINE.validated, BASELINE.evidence())


def test_what_was_approved_answers() -> None:
    """Also as it is read back."""
    kept = agent_from_json(CONFIG.to_json(), allowed=AllowList())

    assert kept is verified(kept, OPTIMIZED.checksum)


def test_changed_content_is_refused() -> None:
    """One character is enough, and a change in memory too."""
    changed = agent_from_json(CONFIG.to_json(), allowed=AllowList())
    part = changed.components[next(iter(changed.components))]
    assert part.value is not None
    parts: Any = changed.components
    parts[next(iter(parts))] = Component(value=replace(part.value, instructions=part.value.instructions + "!"))

    with pytest.raises(ChangedContentError, match=r"agent support: wanted: the content \w{12} that was approved"):
        verified(changed, OPTIMIZED.checksum)
    with pytest.raises(InfrastructureError, match="does not answer; possible: put the approved content back"):
        verified(CONFIG, Fingerprint("0" * 64))
