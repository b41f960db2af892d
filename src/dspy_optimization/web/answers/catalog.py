"""Answers about what there is to choose from: algorithms, metrics, models."""

from typing import Any

from pydantic import Field

from dspy_optimization.web.answers.base import Answer


class OptionOut(Answer):
    """One option of an algorithm."""

    name: str
    type: str
    default: Any
    description: str


class AlgorithmOut(Answer):
    """An installed algorithm."""

    name: str
    description: str
    options: list[OptionOut]
    objectives_supported: str
    needs: list[str]
    source: str = Field(description="The package it comes with; of a registered one its entrypoint.")
    version: str | None = Field(description="Of the package, or of the code that was checked when it was registered.")
    custom: bool = Field(description="Whether this tenant has registered it.")


class MetricOut(Answer):
    """A metric type."""

    name: str
    description: str
    options: list[str]


class ModelOut(Answer):
    """The language model of a role."""

    role: str
    model: str
    base_url: str | None = Field(description="Null unless the key may administer, and where there is no server.")
    priced: bool
    max_concurrency: int | None


class ModelTest(Answer):
    """Whether a model answers."""

    role: str
    ok: bool
    latency_seconds: float | None
    answer: str | None
    error: str | None
