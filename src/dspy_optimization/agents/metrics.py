"""The metrics there are, built from JSON specifications such as `{"type": "exact_match", "field": "answer"}`.

Every specification may give a `name`; without one the type is its name. The text "exact_match" alone is short for
`{"type": "exact_match"}`. What an answer takes is always measured: cost_usd, latency_seconds, tokens, lm_calls.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, overload

from dspy_optimization.agents.allow_list import AllowList, CodeUse
from dspy_optimization.agents.field_metric import Comparison, FieldMetric
from dspy_optimization.agents.json_metrics import JsonMatch
from dspy_optimization.agents.metric import Metric
from dspy_optimization.agents.metric_functions import FunctionMetric
from dspy_optimization.agents.numeric_metric import NumericMatch
from dspy_optimization.agents.operational_metrics import OperationalMetric, Quantity
from dspy_optimization.agents.reasoning_metric import ReasoningMetric
from dspy_optimization.agents.text_metrics import Contains, Embed, ExactMatch, NormalizedMatch, Similarity, TokenF1
from dspy_optimization.agents.untrusted import Block, checked_json, closest, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

MAX_METRICS = 32
JUDGE = "judge"
JUDGE_NAMES = (JUDGE, "llm_judge")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


class NamedMetric(Protocol):
    """What every metric has, also one that needs a model to score."""

    @property
    def name(self) -> str:
        """How objectives call it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricType:
    """One type of metric, as people choose it."""

    name: str
    description: str
    options: tuple[str, ...]
    """Beside type and name."""


METRIC_TYPES: Mapping[str, MetricType] = {
    one.name: one
    for one in (
        MetricType(name="exact_match", description="1 when the field equals what was expected", options=("field",)),
        MetricType(
            name="normalized_match",
            description="1 when it is equal but for case, punctuation, articles and spaces",
            options=("field",),
        ),
        MetricType(name="token_f1", description="F1 over words, as in SQuAD", options=("field",)),
        MetricType(name="contains", description="1 when it contains what was expected", options=("field",)),
        MetricType(
            name="numeric",
            description="1 when the number is right within a tolerance",
            options=("field", "tolerance", "relative_tolerance", "extract"),
        ),
        MetricType(
            name="json_match",
            description="share of fields and their parts that are right",
            options=("fields", "normalize"),
        ),
        MetricType(
            name="semantic_similarity",
            description="cosine of the embeddings; of character trigrams where no embedding is set",
            options=("field",),
        ),
        MetricType(name="reasoning_gym", description="the score a reasoning-gym task gives itself", options=("field",)),
        MetricType(
            name="function",
            description="an installed, allow-listed function (example, prediction) → number",
            options=("function", "low", "high"),
        ),
        MetricType(
            name=JUDGE,
            description="a model grades the answer by a rubric and gives its reason",
            options=("rubric", "low", "high", "samples", "…"),
        ),
        *(
            MetricType(name=one.value, description="what the answer took; less is better", options=())
            for one in Quantity
        ),
    )
}

_Judge = TypeVar("_Judge", bound=NamedMetric)


@overload
def metrics_from_specs(
    specs: Sequence[object], *, allowed: AllowList, judge: None = None, embed: Embed | None = None
) -> Mapping[str, Metric]: ...


@overload
def metrics_from_specs(
    specs: Sequence[object],
    *,
    allowed: AllowList,
    judge: Callable[[Mapping[str, Json]], _Judge],
    embed: Embed | None = None,
) -> Mapping[str, Metric | _Judge]: ...


def metrics_from_specs(
    specs: Sequence[object],
    *,
    allowed: AllowList,
    judge: Callable[[Mapping[str, Json]], _Judge] | None = None,
    embed: Embed | None = None,
) -> Mapping[str, Metric | _Judge]:
    """Return name → metric: those specified, in their order, and the operational ones.

    Args:
        specs: mappings with `type`, perhaps `name`, and the options of the type; or the type alone as text.
        allowed: which functions may be named.
        judge: makes the metric of type `judge`; None: there are no judges here.
        embed: makes `semantic_similarity` semantic; None: it is lexical.
    Raises:
        InvalidRequestError: an unknown type or option, a wrong value, a name twice; the message lists what exists.
    """
    if len(specs) > MAX_METRICS:
        raise InvalidRequestError(f"at most {MAX_METRICS} metrics are accepted, found {len(specs)}; possible: fewer")
    found: dict[str, Metric | _Judge] = {}
    for number, spec in enumerate(specs):
        where = f"metrics[{number}]"
        plain = checked_json(spec, where)
        given: Json = {"type": plain} if isinstance(plain, str) else plain
        if isinstance(given, dict) and given.get("type") in JUDGE_NAMES:
            metric: Metric | _Judge = _judged(given, where, judge)
        else:
            metric = _metric(given, where, allowed, embed)
        if metric.name in found:
            raise InvalidRequestError(
                f'{where}: every metric has a name of its own, found {metric.name} again; possible: "name": another one'
            )
        found[metric.name] = metric
    operational = {one.value: OperationalMetric(quantity=one, name=one.value) for one in Quantity}
    return found | {name: metric for name, metric in operational.items() if name not in found}


def _judged(given: dict[str, Json], where: str, judge: Callable[[Mapping[str, Json]], _Judge] | None) -> _Judge:
    if judge is None:
        raise InvalidRequestError(
            f"{where}: a judge needs a language model, found none here; possible: "
            f"{', '.join(name for name in METRIC_TYPES if name != JUDGE)}"
        )
    try:
        return judge({**given, "type": JUDGE})
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where}: {error}") from error


def _metric(given: Json, where: str, allowed: AllowList, embed: Embed | None) -> Metric:
    kind = _type_of(given, where)
    block = Block(given, f"{where} ({kind.name})", ("type", "name", *kind.options))
    name = block.text("name", kind.name, possible="a name for objectives to use")
    if _NAME.fullmatch(name) is None:
        raise block.wrong("name", "a metric name", "letters, digits and _ . -, at most 64, not beginning with a digit")
    if kind.name in set(Quantity):
        return OperationalMetric(quantity=Quantity(kind.name), name=name)
    match kind.name:
        case "json_match":
            return JsonMatch(name=name, fields=_texts(block, "fields"), normalize=block.flag("normalize", False))
        case "reasoning_gym":
            return ReasoningMetric(name=name, field=block.text("field", "answer"))
        case "function":
            return _function(block, name, allowed)
        case _:
            field = block.text("field") if "field" in block else None
            return FieldMetric(name=name, comparison=_comparison(kind.name, block, embed), field=field)


def _type_of(given: Json, where: str) -> MetricType:
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(kind, str) or kind not in METRIC_TYPES:
        hint = closest(kind, METRIC_TYPES) if isinstance(kind, str) else ""
        raise InvalidRequestError(
            f"{where}: a metric type is wanted, found {shown(kind if isinstance(given, dict) else given)}{hint}; "
            f"possible: {', '.join(METRIC_TYPES)}"
        )
    return METRIC_TYPES[kind]


def _comparison(kind: str, block: Block, embed: Embed | None) -> Comparison:
    match kind:
        case "exact_match":
            return ExactMatch()
        case "normalized_match":
            return NormalizedMatch()
        case "token_f1":
            return TokenF1()
        case "contains":
            return Contains()
        case "numeric":
            return NumericMatch(
                tolerance=block.number("tolerance", 1e-9, low=0.0, high=math.inf),
                relative_tolerance=block.number("relative_tolerance", 0.0, low=0.0, high=1.0),
                extract=block.flag("extract", False),
            )
        case _:
            return Similarity(embed=embed)


def _function(block: Block, name: str, allowed: AllowList) -> FunctionMetric:
    code = block.text("function", possible="package.module:function")
    low = block.number("low", 0.0, low=-1e9, high=1e9)
    high = block.number("high", 1.0, low=-1e9, high=1e9)
    if low >= high:
        raise block.wrong("high", f"a number above low ({low:g})", f"above {low:g}")
    function = allowed.load(CodeUse.METRIC, code, block.at("function"))
    return FunctionMetric(name=name, function=function, floor=low, ceiling=high)


def _texts(block: Block, key: str) -> tuple[str, ...]:
    values = block.items(key, 64)
    texts = tuple(value for value in values if isinstance(value, str))
    if len(texts) < len(values):
        raise block.wrong(key, "a list of field names", "[answer, reason]")
    return texts
