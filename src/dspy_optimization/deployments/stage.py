"""The evidence of one stage: units first exposed in it, until it closes for both versions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from dspy_optimization.agents.untrusted import Block
from dspy_optimization.deployments.gain import RealisedGain, gain_of
from dspy_optimization.deployments.rollout_plan import RolloutPlan
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.analysis import Analysis
from dspy_optimization.experiments.assignment import ExperimentId, UnitId
from dspy_optimization.experiments.bounds import checked_moment
from dspy_optimization.experiments.evidence import Evidence, evidence_of
from dspy_optimization.experiments.log import ExperimentLog
from dspy_optimization.experiments.unit import Place

STAGE_VERSION = 1
_MOST_STAGES = 100
_KEYS = ("version", "stage", "since", "analysis", "gain")


class StageLook(NamedTuple):
    """What one look at a stage shows."""

    rollout: ExperimentId
    stage: int
    evidence: Evidence
    gain: RealisedGain | None
    """Of the last stage alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageAnalysis:
    """The evidence of one stage so far; started afresh with every stage, and kept between two looks.

        analysis = StageAnalysis.start(plan, stage, since=rollout.stage_started_at)
        analysis = analysis.extend(plan, log, as_of)
        look = analysis.look(plan, as_of)

    A unit counts in the stage of its first exposure: it was drawn under the split of that stage, at its start or later.
    A look sees the units whose window and grace have passed. Once the split has risen nobody looks at the stage again,
    so a unit whose window was still open is left out, whichever version it had.
    """

    stage: int
    since: datetime
    """When the stage began."""
    analysis: Analysis
    gain: Analysis | None
    """The same units under the terms of the realised gain; in the last stage alone."""

    @staticmethod
    def start(plan: RolloutPlan, stage: int, *, since: datetime) -> "StageAnalysis":
        """Return the analysis of a stage before its first unit."""
        return StageAnalysis(
            stage=stage,
            since=checked_moment("since", since),
            analysis=Analysis.start(plan.stage_plan(stage)),
            gain=Analysis.start(plan.gain_plan) if plan.is_last(stage) else None,
        )

    @property
    def reads_after(self) -> Place:
        """The place after which the rows of units have to be in the log that the next look is handed."""
        last = self.analysis.last_unit
        return Place(self.since, UnitId("")) if last is None else last

    def extend(self, plan: RolloutPlan, log: ExperimentLog, as_of: datetime) -> "StageAnalysis":
        """Return the analysis of everything usable at a moment.

        Args:
            plan: the one it was started with.
            log: every row received until `as_of` of the units after `reads_after`; of other stages too.
            as_of: the moment of this look.
        Raises:
            ConflictError: another plan.
        """
        split, start = plan.stages[self.stage].split, Place(self.since, UnitId(""))
        exposures = [
            exposure for exposure in log.exposed(as_of, self.analysis.last_exposure or start) if exposure.split == split
        ]
        units = [unit for unit in log.usable(as_of, self.analysis.last_unit or start) if unit.split == split]
        gain = None if self.gain is None else self.gain.extend(plan.gain_plan, exposures, units)
        return replace(self, analysis=self.analysis.extend(plan.stage_plan(self.stage), exposures, units), gain=gain)

    def look(self, plan: RolloutPlan, as_of: datetime) -> StageLook:
        """Return what it shows, of everything usable at `as_of`."""
        gain = None
        if self.gain is not None:
            gain = gain_of(evidence_of(plan.gain_plan, self.gain, as_of), plan.gain_plan.terms.alpha)
        evidence = evidence_of(plan.stage_plan(self.stage), self.analysis, as_of)
        return StageLook(plan.traffic.experiment_id, self.stage, evidence, gain)

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON with finite numbers; `from_json` gives back the same analysis, bit for bit."""
        return {
            "version": STAGE_VERSION,
            "stage": self.stage,
            "since": self.since.isoformat(),
            "analysis": self.analysis.to_json(),
            "gain": None if self.gain is None else self.gain.to_json(),
        }

    @staticmethod
    def from_json(data: Mapping[str, Json]) -> "StageAnalysis":
        """Return the analysis that `to_json` stored.

        Raises:
            InvalidRequestError: it is something else, or of another version.
        """
        block = Block(dict(data), "stage", _KEYS)
        if block.get("version") != STAGE_VERSION:
            raise InvalidRequestError(
                f"stage: wanted: version {STAGE_VERSION}; found: {block.get('version')}; possible: start the analysis "
                "of the stage again from the log"
            )
        text = block.text("since")
        try:
            since = checked_moment("stage.since", datetime.fromisoformat(text))
        except ValueError as error:
            raise block.wrong("since", "a moment in ISO 8601", "2026-03-01T12:00:00+00:00") from error
        return StageAnalysis(
            stage=block.whole("stage", None, low=0, high=_MOST_STAGES),
            since=since,
            analysis=Analysis.from_json(block.mapping("analysis")),
            gain=Analysis.from_json(block.mapping("gain")) if "gain" in block else None,
        )
