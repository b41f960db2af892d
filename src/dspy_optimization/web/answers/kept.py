"""Answers about what is kept: agents and datasets."""

from datetime import datetime
from typing import Any

from pydantic import Field

from dspy_optimization.web.answers.base import Answer


class AgentVersion(Answer):
    """One version of an agent."""

    name: str
    version: str
    created_at: datetime = Field(description="When it was kept first.")


class AgentOut(AgentVersion):
    """An agent's configuration."""

    config: dict[str, Any]


class DatasetOut(Answer):
    """A dataset that is kept, with its sizes."""

    id: str
    name: str
    seed: int
    n_train: int
    n_val: int
    n_test: int
    created_at: datetime = Field(description="When it was kept first.")


class DatasetExample(Answer):
    """One example that is not sealed."""

    id: str
    split: str
    inputs: dict[str, Any]
    expected: dict[str, Any]
    cluster: str | None


class FindingOut(Answer):
    """One thing found in a dataset."""

    severity: str
    code: str
    message: str
    examples: list[str]


class ReportOut(Answer):
    """What a dataset can prove."""

    usable: bool
    sentence: str
    findings: list[FindingOut]
    n_train: int
    n_val: int
    n_test: int
    detectable_gain: float | None
