"""What the command line says on top of the file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from dspy_optimization.agents.document import parse_yaml
from dspy_optimization.agents.untrusted import shown
from dspy_optimization.cli.amounts import number_of, seconds_of, whole_number_of
from dspy_optimization.cli.job_file import (
    MOST,
    MOST_CONCURRENCY,
    DataSource,
    Job,
    data_source,
    with_options,
)
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.events import Json
from dspy_optimization.optimization.proposing import algorithm_choices
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints

_DIRECTIONS = {"max": "maximize", "maximize": "maximize", "min": "minimize", "minimize": "minimize"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanges:
    """The options of `optimize` and `estimate` as they were typed; None and empty: as the file says."""

    data: str | None = None
    objectives: Sequence[str] = ()
    """`metric[:max|min][:weight]`."""
    algorithms: Sequence[str] = ()
    options: Sequence[str] = ()
    """`algorithm.option=value`."""
    max_calls: str | None = None
    max_usd: str | None = None
    max_tokens: str | None = None
    time_limit: str | None = None
    min_gain: str | None = None
    seed: str | None = None
    concurrency: str | None = None
    policy: str | None = None
    """A name, or YAML: `{type: max_cost, at_most: 0.01}`."""

    def applied_to(self, job: Job, folder: Path) -> Job:
        """Return the job with these changes.

        Args:
            job: of the file.
            folder: what `--data` is relative to.
        Raises:
            InvalidRequestError: an option cannot be read; says how it is written.
        """
        return replace(
            job,
            data=self._data(job.data, folder),
            objectives=self._objectives(job),
            algorithms=self._algorithms(job.algorithms),
            constraints=self._constraints(job.constraints),
            policy=job.policy if self.policy is None else parse_yaml(self.policy, "--policy"),
        )

    def _data(self, known: DataSource | None, folder: Path) -> DataSource | None:
        if self.data is None:
            return known
        source = data_source(self.data, folder, "--data")
        return DataSource(source=source) if known is None else replace(known, source=source, name=None)

    def _objectives(self, job: Job) -> tuple["dict[str, Json]", ...]:
        """Return the objectives named here and the guardrails of the file; without any here, the file's own."""
        of_file = tuple(dict(one) for one in job.objectives)
        if self.objectives:
            named = tuple(_objective(text) for text in self.objectives)
            taken = {one["metric"] for one in named}
            guards = (one for one in of_file if one.get("guardrail") is True and one["metric"] not in taken)
            return (*named, *guards)
        if of_file:
            return of_file
        return tuple({"metric": str(one.get("name", one.get("type")))} for one in job.metrics)

    def _algorithms(self, known: tuple[AlgorithmChoice, ...]) -> tuple[AlgorithmChoice, ...]:
        choices = known
        if self.algorithms:
            options = {choice.name: choice.options for choice in known}
            named = algorithm_choices(list(self.algorithms), "--algorithm")
            choices = tuple(replace(one, options=options.get(one.name, {})) for one in named)
        return with_options(choices, dict(_option(text) for text in self.options))

    def _constraints(self, known: Constraints) -> Constraints:
        gain = known.min_improvement_threshold
        if self.min_gain is not None:
            gain = number_of(self.min_gain, "--min-gain", above=-1e-300, possible="0, 0.05")
        return replace(
            known,
            limits=self._limits(known.limits),
            min_improvement_threshold=gain,
            seed=_whole(self.seed, "--seed", known.seed, low=0),
            concurrency=_whole(self.concurrency, "--concurrency", known.concurrency, high=MOST_CONCURRENCY),
        )

    def _limits(self, known: Limits) -> Limits:
        return Limits(
            max_lm_calls=_whole(self.max_calls, "--max-calls", known.max_lm_calls),
            max_cost_usd=known.max_cost_usd
            if self.max_usd is None
            else number_of(self.max_usd, "--max-usd", above=0.0, possible="5, 0.5"),
            max_tokens=_whole(self.max_tokens, "--max-tokens", known.max_tokens),
            max_seconds=known.max_seconds if self.time_limit is None else seconds_of(self.time_limit, "--time-limit"),
        )


_Whole = TypeVar("_Whole", int, int | None)


def _whole(text: str | None, where: str, known: _Whole, *, low: int = 1, high: int = MOST) -> int | _Whole:
    return known if text is None else whole_number_of(text, where, low=low, high=high)


def _objective(text: str) -> dict[str, Json]:
    metric, *rest = text.split(":")
    found: dict[str, Json] = {"metric": metric}
    for part in rest:
        key, value = _objective_part(part, text)
        if key in found:
            raise InvalidRequestError(
                f"--objective {text}: one {key} is wanted, found another, {shown(part)}; possible: metric[:max|min]"
                "[:weight]"
            )
        found[key] = value
    if not metric:
        raise InvalidRequestError(f"--objective {text}: a metric is wanted, found none; possible: exact_match:max")
    return found


def _objective_part(part: str, text: str) -> tuple[str, Json]:
    if part in _DIRECTIONS:
        return "direction", _DIRECTIONS[part]
    metric = text.split(":")[0] or "exact_match"
    try:
        return "weight", number_of(part, f"--objective {text}", above=0.0)
    except InvalidRequestError as error:
        raise InvalidRequestError(
            f"--objective {text}: metric[:max|min][:weight above 0] is wanted, found {shown(part)}; possible: "
            f"{metric}:max, {metric}:min:0.5"
        ) from error


def _option(text: str) -> tuple[str, Json]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InvalidRequestError(
            f"--option {text}: algorithm.option=value is wanted, found no {'=' if not equals else 'option'}; "
            "possible: gepa.max_metric_calls=200 (dspy-opt algorithms lists the options)"
        )
    return key.strip(), parse_yaml(value, f"--option {key.strip()}")
