"""What the usable units of an experiment add up to, taken in piece by piece."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dspy_optimization.agents.untrusted import Block
from dspy_optimization.errors import ConflictError, InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import UnitId
from dspy_optimization.experiments.bounds import checked_moment
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.plan import MAX_GUARDRAILS, ExperimentPlan
from dspy_optimization.experiments.sample_ratios import SampleRatios
from dspy_optimization.experiments.split import BUCKETS, Variant
from dspy_optimization.experiments.unit import Place, Unit
from dspy_optimization.statistics.sequential import BetDesign, EProcess, Units

ANALYSIS_VERSION = 1
_KEYS = (
    "version", "plan_hash", "primary", "guardrails", "exposures", "outcomes", "heard", "n_silent", "first_exposed_at",
    "last_exposure", "last_unit",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The evidence of one experiment so far; a function of its units in their order, however they were cut.

        analysis = Analysis.start(plan)
        exposures, units = log.exposed(as_of, analysis.last_exposure), log.usable(as_of, analysis.last_unit)
        analysis = analysis.extend(plan, exposures, units)

    Kept as JSON between two looks; what it was made of need not be read again.
    """

    plan_hash: str
    primary: EProcess
    guardrails: tuple[EProcess, ...]
    """In the order of the plan."""
    exposures: SampleRatios
    """Units by first exposure."""
    outcomes: SampleRatios
    """Units with a score; where the plan counts missing ones as 0, all usable units."""
    heard: tuple[SampleRatios, ...]
    """For each guardrail, the units that told something of it."""
    n_silent: tuple[int, int]
    """Usable units without any event: of the baseline, of the optimized version."""
    first_exposed_at: datetime | None = None
    last_exposure: Place | None = None
    """Where the next exposures go on."""
    last_unit: Place | None = None
    """Where the next units go on."""

    @staticmethod
    def start(plan: ExperimentPlan) -> "Analysis":
        """Return the analysis before the first unit."""
        primary = BetDesign.difference(
            effect=plan.primary.mde, historical_mean=plan.primary.expected, alpha=plan.terms.alpha
        )
        designs = [
            BetDesign.guardrail(margin=guardrail.margin, historical_mean=guardrail.padded(guardrail.expected))
            for guardrail in plan.guardrails
        ]
        return Analysis(
            plan_hash=plan.hash,
            primary=EProcess.start(primary),
            guardrails=tuple(EProcess.start(design) for design in designs),
            exposures=SampleRatios(),
            outcomes=SampleRatios(),
            heard=tuple(SampleRatios() for _ in designs),
            n_silent=(0, 0),
        )

    def extend(self, plan: ExperimentPlan, exposures: Sequence[Exposure], units: Sequence[Unit]) -> "Analysis":
        """Return the analysis after further units.

        Args:
            plan: the one it was started with.
            exposures: the first ones of further units, in order, after `last_exposure`; what `ExperimentLog.exposed`
                returns.
            units: further usable units, in order, after `last_unit`; what `ExperimentLog.usable` returns.
        Raises:
            ConflictError: another plan, or units that are not in order or were taken in before.
        """
        if plan.hash != self.plan_hash:
            raise ConflictError(
                f"analysis of experiment {plan.experiment_id}: wanted: the plan {self.plan_hash} it was started with; "
                f"found: {plan.hash}; allowed: start the analysis again, a changed plan is another experiment"
            )
        exposed = [Place(exposure.exposed_at, exposure.unit_id) for exposure in exposures]
        last_exposure = _after(self.last_exposure, exposed, "exposures")
        last_unit = _after(self.last_unit, [unit.place for unit in units], "units")
        return _with_units(_with_exposures(self, exposures, last_exposure), plan, units, last_unit)

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON with finite numbers; `from_json` gives back the same analysis, bit for bit."""
        return {
            "version": ANALYSIS_VERSION,
            "plan_hash": self.plan_hash,
            "primary": self.primary.to_json(),
            "guardrails": [process.to_json() for process in self.guardrails],
            "exposures": self.exposures.to_json(),
            "outcomes": self.outcomes.to_json(),
            "heard": [{"ratios": ratios.to_json()} for ratios in self.heard],
            "n_silent": {Variant.BASELINE.value: self.n_silent[0], Variant.OPTIMIZED.value: self.n_silent[1]},
            "first_exposed_at": None if self.first_exposed_at is None else self.first_exposed_at.isoformat(),
            "last_exposure": _place_json(self.last_exposure),
            "last_unit": _place_json(self.last_unit),
        }

    @staticmethod
    def from_json(data: Mapping[str, Json]) -> "Analysis":
        """Return the analysis that `to_json` stored.

        Raises:
            InvalidRequestError: it is something else, or of another version.
        """
        block = Block(dict(data), "analysis", _KEYS)
        if block.get("version") != ANALYSIS_VERSION:
            raise InvalidRequestError(
                f"analysis: wanted: version {ANALYSIS_VERSION}; found: {block.get('version')}; possible: start the "
                "analysis again from the log"
            )
        silent = Block(block.mapping("n_silent"), "analysis.n_silent", tuple(Variant))
        return Analysis(
            plan_hash=block.text("plan_hash"),
            primary=EProcess.from_json(block.mapping("primary")),
            guardrails=tuple(EProcess.from_json(one) for one in _mappings(block, "guardrails")),
            exposures=SampleRatios.from_json(block.items("exposures", BUCKETS)),
            outcomes=SampleRatios.from_json(block.items("outcomes", BUCKETS)),
            heard=tuple(
                SampleRatios.from_json(Block(one, "analysis.heard", ("ratios",)).items("ratios", BUCKETS))
                for one in block.items("heard", MAX_GUARDRAILS)
            ),
            n_silent=(_count(silent, Variant.BASELINE), _count(silent, Variant.OPTIMIZED)),
            first_exposed_at=_moment(block, "first_exposed_at") if "first_exposed_at" in block else None,
            last_exposure=_place(block, "last_exposure"),
            last_unit=_place(block, "last_unit"),
        )


def _with_exposures(analysis: Analysis, exposures: Sequence[Exposure], last: Place | None) -> Analysis:
    if not exposures:
        return analysis
    first = exposures[0].exposed_at if analysis.first_exposed_at is None else analysis.first_exposed_at
    ratios = analysis.exposures.extend([(exposure.split, exposure.variant) for exposure in exposures])
    return replace(analysis, exposures=ratios, first_exposed_at=first, last_exposure=last)


def _with_units(analysis: Analysis, plan: ExperimentPlan, units: Sequence[Unit], last: Place | None) -> Analysis:
    if not units:
        return analysis
    scored = [unit for unit in units if unit.score is not None]
    scores = [unit.score for unit in units if unit.score is not None]
    guardrails, heard = [], []
    processes = zip(plan.guardrails, analysis.guardrails, analysis.heard, strict=True)
    for number, (guardrail, process, ratios) in enumerate(processes):
        told = [unit for unit in units if unit.harms[number] is not None]
        harms = [guardrail.padded(harm) for unit in told if (harm := unit.harms[number]) is not None]
        guardrails.append(process.extend(_arrays(told, harms)))
        heard.append(ratios.extend([(unit.split, unit.variant) for unit in told]))
    silent = [unit.variant for unit in units if unit.n_events == 0]
    baseline, optimized = analysis.n_silent
    return replace(
        analysis,
        primary=analysis.primary.extend(_arrays(scored, scores)),
        guardrails=tuple(guardrails),
        outcomes=analysis.outcomes.extend([(unit.split, unit.variant) for unit in scored]),
        heard=tuple(heard),
        n_silent=(baseline + silent.count(Variant.BASELINE), optimized + silent.count(Variant.OPTIMIZED)),
        last_unit=last,
    )


def _arrays(units: Sequence[Unit], outcomes: Sequence[float]) -> Units:
    return Units.of(
        [unit.variant is Variant.OPTIMIZED for unit in units],
        outcomes,
        [unit.split.share for unit in units],
    )


def _after(last: Place | None, places: Sequence[Place], what: str) -> Place | None:
    for place in places:
        if last is not None and place <= last:
            raise ConflictError(
                f"analysis: wanted: {what} in the order of their exposure, each once; found: unit {place.unit_id} of "
                f"{place.exposed_at.isoformat()} after unit {last.unit_id} of {last.exposed_at.isoformat()}; allowed: "
                f"{what} of later places only, as the log returns them"
            )
        last = place
    return last


def _place_json(place: Place | None) -> Json:
    return None if place is None else {"exposed_at": place.exposed_at.isoformat(), "unit_id": place.unit_id}


def _place(block: Block, key: str) -> Place | None:
    if key not in block:
        return None
    place = Block(block.get(key), block.at(key), ("exposed_at", "unit_id"))
    return Place(_moment(place, "exposed_at"), UnitId(place.text("unit_id")))


def _moment(block: Block, key: str) -> datetime:
    text = block.text(key)
    try:
        return checked_moment(block.at(key), datetime.fromisoformat(text))
    except ValueError as error:
        raise block.wrong(key, "a moment in ISO 8601", "2026-03-01T12:00:00+00:00") from error


def _mappings(block: Block, key: str) -> list[dict[str, Json]]:
    items = block.items(key, MAX_GUARDRAILS)
    mappings = [item for item in items if isinstance(item, dict)]
    if len(mappings) != len(items):
        raise block.wrong(key, "a list of mappings", "what to_json returned")
    return mappings


def _count(block: Block, key: str) -> int:
    return block.whole(key, None, low=0, high=1 << 53)
