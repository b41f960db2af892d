"""Reading a plan that was kept: the same plan, with the same hash."""

from collections.abc import Mapping
from uuid import UUID

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.untrusted import Block
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import ExperimentId, Override
from dspy_optimization.experiments.guardrail import Guardrail, GuardrailKind
from dspy_optimization.experiments.plan import (
    MAX_GUARDRAILS,
    PLAN_VERSION,
    ExperimentPlan,
    MissingOutcome,
    PrimaryMetric,
    Terms,
    UnitRule,
    Window,
)
from dspy_optimization.experiments.split import BUCKETS, Split, Variant
from dspy_optimization.tenancy import TenantId

MAX_OVERRIDES = 100
_KEYS = (
    "version", "experiment_id", "tenant", "optimization_id", "agent", "baseline", "optimized", "primary", "guardrails",
    "window", "terms", "split_buckets", "salt", "overrides",
)  # fmt: skip
_PRIMARY = ("metric", "mde", "expected", "unit_rule", "missing")
_GUARDRAIL = ("name", "kind", "limit", "metric", "margin", "allowance", "expected")
_WINDOW = ("seconds", "grace_seconds")
_TERMS = ("alpha", "minimum_units", "minimum_hours", "extended_validation", "maximum_hours", "fdr_alpha")


def plan_from_json(data: Mapping[str, Json]) -> ExperimentPlan:
    """Return the plan that `ExperimentPlan.to_json` wrote.

    Raises:
        InvalidRequestError: another version, a missing or unknown field, or a value that a plan refuses.
    """
    block = Block(dict(data), "plan", _KEYS)
    if block.get("version") != PLAN_VERSION:
        raise InvalidRequestError(
            f"plan: wanted: version {PLAN_VERSION}; found: {block.get('version')}; possible: what to_json of a plan "
            "returned"
        )
    return ExperimentPlan(
        experiment_id=ExperimentId(_uuid(block, "experiment_id")),
        tenant=TenantId(_uuid(block, "tenant")),
        optimization_id=OptimizationId(_uuid(block, "optimization_id")),
        agent=block.text("agent"),
        baseline=Fingerprint(block.text("baseline")),
        optimized=Fingerprint(block.text("optimized")),
        primary=_primary(Block(block.mapping("primary"), "plan.primary", _PRIMARY)),
        guardrails=tuple(
            _guardrail(Block(one, f"plan.guardrails[{number}]", _GUARDRAIL))
            for number, one in enumerate(block.items("guardrails", MAX_GUARDRAILS))
        ),
        window=_window(Block(block.mapping("window"), "plan.window", _WINDOW)),
        terms=_terms(Block(block.mapping("terms"), "plan.terms", _TERMS)),
        split=Split(buckets=block.whole("split_buckets", None, low=1, high=BUCKETS - 1)),
        salt=block.text("salt"),
        overrides=tuple(
            _override(Block(one, f"plan.overrides[{number}]", ("attribute", "values", "variant")))
            for number, one in enumerate(block.items("overrides", MAX_OVERRIDES))
        ),
    )


def _primary(block: Block) -> PrimaryMetric:
    return PrimaryMetric(
        metric=block.text("metric"),
        mde=block.number("mde", None, low=0.0, high=1.0),
        expected=block.number("expected", None, low=0.0, high=1.0),
        unit_rule=block.one_of("unit_rule", UnitRule),
        missing=block.one_of("missing", MissingOutcome),
    )


def _guardrail(block: Block) -> Guardrail:
    return Guardrail(
        name=block.text("name"),
        kind=block.one_of("kind", GuardrailKind),
        limit=block.number("limit", None, low=0.0, high=1e300) if "limit" in block else None,
        metric=block.text("metric") if "metric" in block else None,
        margin=block.number("margin", None, low=0.0, high=10.0),
        allowance=block.number("allowance", None, low=0.0, high=1.0),
        expected=block.number("expected", None, low=0.0, high=1.0),
    )


def _window(block: Block) -> Window:
    return Window(
        seconds=block.number("seconds", None, low=0.0, high=1e6),
        grace_seconds=block.number("grace_seconds", None, low=0.0, high=1e6),
    )


def _terms(block: Block) -> Terms:
    return Terms(
        alpha=block.number("alpha", None, low=0.0, high=1.0),
        minimum_units=block.whole("minimum_units", None, low=1, high=1 << 53),
        minimum_hours=block.number("minimum_hours", None, low=0.0, high=1e6),
        extended_validation=block.flag("extended_validation", False),
        maximum_hours=block.number("maximum_hours", None, low=0.0, high=1e6),
        fdr_alpha=block.number("fdr_alpha", None, low=0.0, high=1.0) if "fdr_alpha" in block else None,
    )


def _override(block: Block) -> Override:
    values = block.items("values", 10_000)
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) != len(values):
        raise block.wrong("values", "a list of texts", '["tester-1", "tester-2"]')
    return Override(
        attribute=block.text("attribute"),
        values=frozenset(texts),
        variant=block.one_of("variant", Variant),
    )


def _uuid(block: Block, key: str) -> UUID:
    text = block.text(key)
    try:
        return UUID(text)
    except ValueError as error:
        raise block.wrong(key, "a UUID", "0199c1d2-0000-7000-8000-0000000000aa") from error
