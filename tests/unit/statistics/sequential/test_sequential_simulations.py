"""The research notes' acceptance criteria S1 to S9, S11 and S12, each with a control that has to fail.

Fewer replications than `benchmarks/sequential.py` takes, with bounds for as many: target plus three Monte-Carlo errors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from benchmarks import sequential
from benchmarks.sequential import Check

REPLICATIONS = {
    sequential.equal_arms: 300,
    sequential.better_arm: 120,
    sequential.harm: 100,
    sequential.coverage: 120,
    sequential.ramp: 200,
    sequential.sticky_users: 300,
    sequential.sample_ratio: 150,
    sequential.guardrail: 200,
    sequential.many_experiments: 100,
    sequential.quality_drop: 300,
}


@pytest.mark.parametrize("criterion", sequential.CRITERIA, ids=lambda criterion: criterion.__name__)
def test_criterion_holds_and_its_control_fails(criterion: Callable[[int, np.random.Generator], list[Check]]) -> None:
    """Every bound is kept, every control misses it, and there is one of each."""
    checks = criterion(REPLICATIONS[criterion], np.random.default_rng(41))

    assert [check for check in checks if not check.is_as_wanted] == []
    assert {check.control for check in checks} == {True, False}
