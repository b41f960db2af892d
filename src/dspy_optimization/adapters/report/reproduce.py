"""What somebody needs to do the same again."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from dspy_optimization.agents.candidate import canonical_json
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Role
from dspy_optimization.optimization.request import OptimizationRequest

STARTED_WITH = "agent.yaml"
"""Stands for the file it was started with, whose name nobody keeps; what `dspy-opt init` writes is called so."""
PACKAGES = ("dspy-optimization", "dspy", "gepa", "litellm", "mlflow-skinny", "numpy", "scipy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """The same again: command, seed, versions, dataset hash, models."""

    words: tuple[str, ...]
    """The command; it takes agent, dataset, metrics and guardrails from the file it was started with."""
    seed: int
    agent_version: str
    dataset_name: str
    dataset_version: str
    split_sizes: Mapping[Split, int]
    models: Mapping[Role, str]
    versions: Mapping[str, str]

    @property
    def command(self) -> str:
        """The command on one line, quoted for a shell."""
        return shlex.join(self.words)

    def lines(self, columns: int) -> Sequence[str]:
        """Return the command in lines that a shell reads as one; only a word longer than `columns` is wider."""
        options: list[str] = []
        for word in self.words:
            quoted = shlex.quote(word)
            if word.startswith("--") or not options or not options[-1].startswith("--"):
                options.append(quoted)
            else:
                options[-1] += f" {quoted}"
        lines = [options[0]]
        for option in options[1:]:
            if len(lines[-1]) + len(option) + 3 <= columns:
                lines[-1] += f" {option}"
            else:
                lines.append(option)
        return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def reproduction(request: OptimizationRequest, dataset: Dataset, models: Mapping[Role, str]) -> Reproduction:
    """Return what the request was, in terms of the command line."""
    return Reproduction(
        words=("dspy-opt", "optimize", STARTED_WITH, *_options(request)),
        seed=request.constraints.seed,
        agent_version=request.target.version,
        dataset_name=dataset.name,
        dataset_version=dataset.version,
        split_sizes={split: len(dataset[split]) for split in Split},
        models=dict(models),
        versions=installed_versions(),
    )


def installed_versions() -> dict[str, str]:
    """Return package → version of what decides the outcome, Python first."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _options(request: OptimizationRequest) -> Sequence[str]:
    constraints = request.constraints
    words: list[str] = []
    for objective in (item for item in request.objectives if not item.guardrail):
        words += ["--objective", _objective(objective)]
    for choice in request.algorithms:
        words += ["--algorithm", choice.name]
        for name, value in choice.options.items():
            words += ["--option", f"{choice.name}.{name}={value if isinstance(value, str) else canonical_json(value)}"]
    words += _caps(constraints.limits)
    if constraints.min_improvement_threshold:
        words += ["--min-gain", f"{constraints.min_improvement_threshold:g}"]
    return [*words, "--seed", str(constraints.seed), "--concurrency", str(constraints.concurrency)]


def _objective(objective: Objective) -> str:
    direction = "max" if objective.direction is Direction.MAXIMIZE else "min"
    weight = f":{objective.weight:g}" if objective.weight != 1.0 else ""
    return f"{objective.metric}:{direction}{weight}"


def _caps(limits: Limits) -> Sequence[str]:
    caps = {
        "--max-calls": limits.max_lm_calls,
        "--max-usd": limits.max_cost_usd,
        "--max-tokens": limits.max_tokens,
    }
    words = [word for option, cap in caps.items() if cap is not None for word in (option, f"{cap:.10g}")]
    return [*words, "--time-limit", f"{limits.max_seconds:g}s"] if limits.max_seconds is not None else words
