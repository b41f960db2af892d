"""Candidates that are given: nothing is searched, they are measured on val and may go to the gate as any other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, Fingerprint
from dspy_optimization.agents.component_settings import ComponentSettings, ModuleKind
from dspy_optimization.agents.untrusted import Block, checked_json
from dspy_optimization.algorithms.problem import Forecast, Problem, Progress, SearchRun, Shape
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

NAME = "given"
MOST_CANDIDATES = 256
_KEYS = ("components", "origin", "parents")
_PART_KEYS = ("instructions", "demos", "settings")
_SETTING_KEYS = ("model", "parameters", "kind", "tools")
_POSSIBLE = '{"components": {"<component>": {"instructions": "…", "demos": [{…}]}}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenOptions:
    """Which candidates.

    Raises:
        InvalidRequestError: one that is none, or too many; names the place.
    """

    candidates: tuple[Mapping[str, Json], ...] = ()
    """What each says: {components: {name: {instructions, demos, settings}}}; what is left out is as in the agent."""

    def __post_init__(self) -> None:
        if len(self.candidates) > MOST_CANDIDATES:
            raise InvalidRequestError(
                f"candidates: wanted: at most {MOST_CANDIDATES}; found: {len(self.candidates)}; possible: the best ones"
            )
        for number, one in enumerate(self.candidates):
            _Reader(checked_json(one, f"candidates[{number}]"), f"candidates[{number}]").check()


class Given:
    """Submits the candidates it was given, in their order."""

    name: ClassVar[str] = NAME
    description: ClassVar[str] = (
        "Searches nothing: measures candidates that somebody wrote or picked, so that they go through the same gate."
    )
    options: ClassVar[type] = GivenOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        """Return a run of every candidate on val. Raises `InvalidRequestError` when there is no candidate."""
        some = _options(options).candidates
        if not some:
            raise InvalidRequestError(
                f"the option candidates of {NAME}: wanted: at least one candidate; found: none; possible: {_POSSIBLE}"
            )
        return Forecast(runs=len(some) * shape.n_val, proposals=0)

    def search(self, problem: Problem, run: SearchRun) -> None:
        """Submit them. Raises `InvalidRequestError` for one that this agent cannot have."""
        some = [
            candidate_from_json(one, problem.baseline, problem.frozen, where=f"candidates[{number}]")
            for number, one in enumerate(_options(problem.options).candidates)
        ]
        for number, candidate in enumerate(some, start=1):
            run.submit(candidate)
            run.report(Progress(phase="given", iteration=number, iterations=len(some), candidate=candidate))


def candidate_from_json(
    data: object, baseline: Candidate, frozen: frozenset[ComponentName], *, where: str = "candidate"
) -> Candidate:
    """Return the candidate that plain JSON says; what it leaves out is as in the baseline.

    Args:
        data: as `candidate_to_json` writes it.
        baseline: of the agent it is for.
        frozen: components that have to stay as they are.
        where: the place, as messages name it.
    Raises:
        InvalidRequestError: a component that the agent does not have, one that is frozen, or another form.
    """
    reader = _Reader(checked_json(data, where), where)
    reader.check()
    components = dict(baseline.components)
    for name, block in reader.components.items():
        key = ComponentName(name)
        if key not in components:
            raise InvalidRequestError(
                f"{where}: wanted: a component of the agent; found: {name}; possible: {', '.join(components)}"
            )
        value = reader.value(block, components[key])
        if key in frozen and value != components[key]:
            raise InvalidRequestError(
                f"{where}: wanted: that the frozen component {name} stays as it is; found: another value; possible: "
                "leave it out, or unfreeze it in the agent"
            )
        components[key] = value
    return Candidate(components=components, origin=reader.origin, parents=reader.parents or (baseline.fingerprint,))


def candidate_to_json(candidate: Candidate, origin: str) -> dict[str, Json]:
    """Return a candidate as an option of `given`; `origin` says in words where it came from."""
    # Settings are said also where they are empty: what is left out would be the baseline's.
    parts: dict[str, Json] = {
        name: {
            "instructions": value.instructions,
            "demos": [dict(demo) for demo in value.demos],
            "settings": value.settings.to_json(),
        }
        for name, value in candidate.components.items()
    }
    return {"components": parts, "origin": origin}


def _options(options: object) -> GivenOptions:
    if not isinstance(options, GivenOptions):
        raise TypeError(f"wanted: options of {NAME}; found: {type(options).__name__}; possible: of its registry")
    return options


class _Reader:
    """Reads one candidate."""

    def __init__(self, data: Json, where: str) -> None:
        self._block = Block(data, where, _KEYS)

    @property
    def components(self) -> Mapping[str, Block]:
        parts = self._block.mapping("components")
        return {name: Block(part, f"{self._block.at('components')}.{name}", _PART_KEYS) for name, part in parts.items()}

    @property
    def origin(self) -> str:
        return self._block.text("origin", NAME, max_bytes=200)

    @property
    def parents(self) -> tuple[Fingerprint, ...]:
        return tuple(Fingerprint(text) for text in _texts(self._block, "parents", "fingerprints"))

    def check(self) -> None:
        """Read all of it once. Raises `InvalidRequestError`."""
        components = self.components
        if not components:
            raise InvalidRequestError(f"{self._block.at('components')} is missing; possible: {_POSSIBLE}")
        _ = self.origin, self.parents
        for block in components.values():
            self.value(block, ComponentValue(instructions=""))

    def value(self, block: Block, before: ComponentValue) -> ComponentValue:
        demos: tuple[Mapping[str, Json], ...] = before.demos
        if "demos" in block:
            given = block.items("demos", 1_000)
            demos = tuple(demo for demo in given if isinstance(demo, dict))
            if len(demos) < len(given):
                raise block.wrong("demos", "a list of mappings, field to value,", '[{"question": "…", "answer": "…"}]')
        return ComponentValue(
            instructions=block.text("instructions", before.instructions, max_bytes=1 << 18),
            demos=demos,
            settings=_settings(block) if "settings" in block else before.settings,
        )


def _settings(block: Block) -> ComponentSettings:
    one = Block(block.get("settings"), block.at("settings"), _SETTING_KEYS)
    parameters = one.mapping("parameters")
    numbers = {
        name: value
        for name, value in parameters.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if len(numbers) < len(parameters):
        raise one.wrong("parameters", "numbers", '{"temperature": 0.7}')
    try:
        return ComponentSettings(
            model=one.text("model") if "model" in one else None,
            parameters=numbers,
            kind=cast("ModuleKind", one.text("kind")) if "kind" in one else None,
            tools=_texts(one, "tools", "names of tools") if "tools" in one else None,
        )
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{one.where}: {error}") from error


def _texts(block: Block, key: str, what: str) -> tuple[str, ...]:
    given = block.items(key, 64)
    texts = tuple(one for one in given if isinstance(one, str))
    if len(texts) < len(given):
        raise block.wrong(key, f"a list of {what}", "[...]")
    return texts
