"""Candidates as rows of codes: which instruction, which demos in which order, which settings, component by component.

    pool = GenePool(baseline, frozen, choices, slots=4)
    pool.add_demo("answer", {"question": "2 + 2", "answer": "4"})
    row = pool.encode(candidate)          # new texts become new genes
    pool.decode(row)                      # the candidate again
    pool.features(rows)                   # what a response model sees of them

The pool grows while a search goes on; what a code means never changes, so rows stay valid.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dspy_optimization.agents.candidate import (
    Candidate,
    ComponentName,
    ComponentValue,
    Fingerprint,
    canonical_json,
)
from dspy_optimization.agents.component_settings import Choices, ComponentSettings
from dspy_optimization.algorithms.text_vectors import vectors
from dspy_optimization.compute.ranking import Floats
from dspy_optimization.compute.variation import MOST_CHOICES, Codes, Population, Space
from dspy_optimization.errors import AlgorithmError
from dspy_optimization.events import Json

Gene: TypeAlias = Literal["instructions", "demos", "kind", "model", "tools", "temperature"]
TEMPERATURES: tuple[float, ...] = (0.0, 0.3, 0.7, 1.0)
"""What a temperature gene chooses from."""
_VECTOR = 24
"""Numbers that stand for a text beside its own column."""

Demo: TypeAlias = Mapping[str, Json]


@dataclass(slots=True, kw_only=True)
class _Part:
    """The genes of one component."""

    name: ComponentName
    base: ComponentValue
    instructions: list[str]
    demos: list[Demo]
    axes: tuple[tuple[ComponentSettings, ...], ...]
    """Per setting gene what its codes stand for."""
    names: tuple[Gene, ...]
    """The setting genes."""
    numbers: dict[str, int] = field(default_factory=dict)
    """Text of an instruction or JSON of a demo → its code."""


class GenePool:
    """What candidates of one search are made of."""

    def __init__(
        self,
        baseline: Candidate,
        frozen: Collection[ComponentName],
        choices: Mapping[ComponentName, Choices],
        *,
        slots: int,
        vary: Collection[Gene] = ("instructions", "demos"),
    ) -> None:
        """Begin with what the baseline says.

        Args:
            baseline: its values stand where nothing is varied.
            frozen: components that stay as they are.
            choices: what may be settled of each component beside its texts.
            slots: places for demos in a component; more where the baseline shows more.
            vary: which genes there are; what is not in it stays as the baseline has it.

        Raises:
            AlgorithmError: nothing is left to vary.
        """
        self._baseline = baseline
        self._vary = frozenset(vary)
        parts = [name for name in baseline.components if name not in frozen]
        self._slots = (
            max([slots, *(len(baseline.components[name].demos) for name in parts)]) if "demos" in self._vary else 0
        )
        self._born: list[tuple[ComponentName, str, int]] = []
        self._parts = tuple(_part(name, baseline.components[name], choices.get(name), self._vary) for name in parts)
        if not any("instructions" in self._vary or self._slots or part.axes for part in self._parts):
            raise AlgorithmError(
                "genome: wanted: something to vary; found: every component is frozen, or has no choice in "
                f"{', '.join(sorted(self._vary)) or 'no gene'}; possible: unfreeze a component, or vary instructions "
                "or demos"
            )
        for part in self._parts:
            self._instruction(part, part.base.instructions)
            for demo in part.base.demos if self._slots else ():
                self.add_demo(part.name, demo)

    @property
    def components(self) -> tuple[ComponentName, ...]:
        """The components that vary."""
        return tuple(part.name for part in self._parts)

    @property
    def slots(self) -> int:
        """Places for demos in each component; 0: demos do not vary."""
        return self._slots

    @property
    def genes(self) -> int:
        """How many codes a row has."""
        return sum(self._length(part) for part in self._parts)

    @property
    def space(self) -> Space:
        """What there is to choose from now."""
        return Space(choices=tuple(count for part in self._parts for count in self._counts(part)))

    def instructions(self, component: ComponentName) -> Sequence[str]:
        """The texts there are for a component, the baseline's first."""
        return tuple(self._of(component).instructions)

    def demos(self, component: ComponentName) -> Sequence[Demo]:
        """The demos there are for a component."""
        return tuple(self._of(component).demos)

    def add_instruction(self, component: ComponentName, text: str) -> int:
        """Return the code of an instruction; a new one for a new text."""
        return self._instruction(self._of(component), text)

    def add_demo(self, component: ComponentName, demo: Demo) -> int:
        """Return the code of a demo, from 1; 0 in a row is an empty place."""
        part = self._of(component)
        key = f"demo {canonical_json(dict(demo))}"
        if key not in part.numbers:
            part.demos.append(dict(demo))
            part.numbers[key] = len(part.demos)
            self._born.append((component, "demo", len(part.demos) - 1))
            _check_count(part.name, len(part.demos))
        return part.numbers[key]

    def encode(self, candidate: Candidate) -> Codes:
        """Return the row of a candidate, (genes,); texts that are not there are added.

        Raises:
            AlgorithmError: it shows more demos than there are places, or differs in what is no gene.
        """
        row: list[int] = []
        for part in self._parts:
            value = candidate.components.get(part.name, part.base)
            if "instructions" not in self._vary and value.instructions != part.base.instructions:
                raise AlgorithmError(
                    f"{part.name}: wanted: the agent's instructions, which are no gene; found: others; possible: vary "
                    "instructions"
                )
            row.append(self._instruction(part, value.instructions) if "instructions" in self._vary else 0)
            if self._slots:
                if len(value.demos) > self._slots:
                    raise AlgorithmError(
                        f"{part.name}: wanted: at most {self._slots} demos; found: {len(value.demos)}; possible: more "
                        "places for demos"
                    )
                shown = [self.add_demo(part.name, demo) for demo in value.demos]
                row.extend([*shown, *([0] * (self._slots - len(shown)))])
            elif value.demos != part.base.demos:
                raise AlgorithmError(
                    f"{part.name}: wanted: the agent's demos, which are no gene; found: {len(value.demos)} others; "
                    "possible: vary demos, with places for them"
                )
            row.extend(_codes_of(part, value.settings))
        return np.array(row, dtype=np.int16)

    def can_say(self, candidate: Candidate) -> bool:
        """Say whether a candidate has a row; if so, its texts and demos are genes from now on."""
        try:
            self.encode(candidate)
        except AlgorithmError:
            return False
        return True

    def decode(
        self, row: npt.NDArray[np.integer], *, origin: str = "", parents: tuple[Fingerprint, ...] = ()
    ) -> Candidate:
        """Return the candidate a row stands for; a demo that stands twice is shown once."""
        values = dict(self._baseline.components)
        at = 0
        for part in self._parts:
            codes = [int(code) for code in row[at : at + self._length(part)]]
            at += len(codes)
            text = part.instructions[codes[0]] if "instructions" in self._vary else part.base.instructions
            demos = part.base.demos
            if self._slots:
                shown = dict.fromkeys(code for code in codes[1 : 1 + self._slots] if code)
                demos = tuple(part.demos[code - 1] for code in shown)
            settings = _settings_of(part, codes[len(codes) - len(part.axes) :])
            values[part.name] = replace(part.base, instructions=text, demos=demos, settings=settings)
        return Candidate(components=values, origin=origin, parents=parents)

    def tidied(self, codes: Codes) -> Codes:
        """Return rows in which demos stand first and once: equal candidates then have equal rows."""
        found = codes.copy()
        at = 0
        for part in self._parts:
            if self._slots:
                shown = found[:, at + 1 : at + 1 + self._slots]
                for place in range(1, self._slots):
                    again = (shown[:, :place] == shown[:, place : place + 1]).any(axis=1)
                    shown[again, place] = 0
                order = np.argsort(shown == 0, axis=1, kind="stable")
                found[:, at + 1 : at + 1 + self._slots] = np.take_along_axis(shown, order, axis=1)
            at += self._length(part)
        return found

    def features(self, codes: Codes) -> Floats:
        """Return what a response model sees of rows, (n, d): each text, demo and setting; texts as vectors too.

        When the pool grows, columns are added behind those that were there.
        """
        lasting: list[Floats] = []
        own: dict[tuple[ComponentName, str], Floats] = {}
        at = 0
        for part in self._parts:
            if "instructions" in self._vary:
                chosen = codes[:, at]
                own[part.name, "text"] = np.eye(len(part.instructions))[chosen]
                lasting.append(vectors(part.instructions, _VECTOR)[chosen])
            if self._slots:
                shown = codes[:, at + 1 : at + 1 + self._slots]
                present = np.zeros((len(codes), len(part.demos) + 1))
                np.put_along_axis(present, shown.astype(np.int64), 1.0, axis=1)
                own[part.name, "demo"] = present[:, 1:]
                count = (shown > 0).sum(axis=1, keepdims=True) / self._slots
                lasting.append(np.hstack([count, count**2]))
            begin = at + self._length(part) - len(part.axes)
            lasting.extend(np.eye(len(values))[codes[:, begin + place]] for place, values in enumerate(part.axes))
            at += self._length(part)
        born = [own[component, kind][:, place] for component, kind, place in self._born if (component, kind) in own]
        return np.column_stack([*lasting, *born])

    def points(self, rows: Sequence[Codes]) -> Population:
        """Return rows as a population, tidied."""
        codes = np.array(rows, dtype=np.int16).reshape(len(rows), self.genes)
        return Population(codes=self.tidied(codes), numbers=np.zeros((len(rows), 0)))

    def drawn(self, count: int, rng: np.random.Generator) -> Population:
        """Return random rows, (count): every number of demos is as likely, so that few and none are met too."""
        codes = rng.integers(0, np.array(self.space.choices), (count, self.genes)).astype(np.int16)
        at = 0
        for part in self._parts:
            if self._slots:
                kept = rng.integers(0, self._slots + 1, (count, 1))
                empty = np.arange(self._slots)[None, :] >= kept
                codes[:, at + 1 : at + 1 + self._slots][empty] = 0
            at += self._length(part)
        return Population(codes=self.tidied(codes), numbers=np.zeros((count, 0)))

    def _instruction(self, part: _Part, text: str) -> int:
        key = f"text {text}"
        if key not in part.numbers:
            part.instructions.append(text)
            part.numbers[key] = len(part.instructions) - 1
            self._born.append((part.name, "text", len(part.instructions) - 1))
            _check_count(part.name, len(part.instructions))
        return part.numbers[key]

    def _of(self, component: ComponentName) -> _Part:
        return next(part for part in self._parts if part.name == component)

    def _length(self, part: _Part) -> int:
        return 1 + self._slots + len(part.axes)

    def _counts(self, part: _Part) -> tuple[int, ...]:
        texts = len(part.instructions) if "instructions" in self._vary else 1
        return (texts, *([len(part.demos) + 1] * self._slots), *(len(values) for values in part.axes))


def _part(name: ComponentName, base: ComponentValue, choices: Choices | None, vary: Collection[Gene]) -> _Part:
    genes = {} if choices is None else _setting_genes(base.settings, choices)
    varied: dict[Gene, tuple[ComponentSettings, ...]] = {
        gene: others for gene, others in genes.items() if gene in vary and others
    }
    return _Part(
        name=name,
        base=base,
        instructions=[],
        demos=[],
        axes=tuple((base.settings, *others) for others in varied.values()),
        names=tuple(varied),
    )


def _setting_genes(own: ComponentSettings, choices: Choices) -> dict[Gene, tuple[ComponentSettings, ...]]:
    """Return what each setting may be beside what the baseline has; of a value only the gene's own field counts."""
    answers = own.kind or choices.agent.kind or (choices.kinds[0] if choices.kinds else None)
    warmth = own.parameters.get("temperature", choices.agent.parameters.get("temperature"))
    possible = choices.parameters.get("temperature")
    fewer = [tuple(tool for tool in choices.tools if tool != left_out) for left_out in choices.tools]
    return {
        "kind": tuple(ComponentSettings(kind=kind) for kind in choices.kinds if kind != answers),
        "model": tuple(
            ComponentSettings(model=model)
            for model in ((None, *choices.models) if choices.models else ())
            if model != own.model
        ),
        "tools": tuple(
            ComponentSettings(tools=tools)
            for tools in ((None, *fewer) if len(choices.tools) > 1 else ())
            if tools != own.tools
        ),
        "temperature": tuple(
            ComponentSettings(parameters={"temperature": one})
            for one in TEMPERATURES
            if possible is not None and possible.holds(one) and one != warmth
        ),
    }


def _with(settings: ComponentSettings, gene: Gene, said: ComponentSettings) -> ComponentSettings:
    """Return settings with the one field of a gene as `said` has it."""
    match gene:
        case "kind":
            return replace(settings, kind=said.kind)
        case "model":
            return replace(settings, model=said.model)
        case "tools":
            return replace(settings, tools=said.tools)
        case _:
            others = {name: value for name, value in settings.parameters.items() if name != gene}
            own = {name: value for name, value in said.parameters.items() if name == gene}
            return replace(settings, parameters=others | own)


def _settings_of(part: _Part, codes: Sequence[int]) -> ComponentSettings:
    settings = part.base.settings
    for gene, values, code in zip(part.names, part.axes, codes, strict=True):
        settings = _with(settings, gene, values[code])
    return settings


def _codes_of(part: _Part, settings: ComponentSettings) -> list[int]:
    codes = [
        next((code for code, value in enumerate(values) if _with(settings, gene, value) == settings), 0)
        for gene, values in zip(part.names, part.axes, strict=True)
    ]
    if _settings_of(part, codes) != settings:
        raise AlgorithmError(
            f"{part.name}: wanted: settings that are genes; found: {settings.to_json()}; possible: vary what differs "
            f"from {part.base.settings.to_json()}"
        )
    return codes


def _check_count(name: ComponentName, count: int) -> None:
    if count >= MOST_CHOICES:
        raise AlgorithmError(
            f"{name}: wanted: less than {MOST_CHOICES} genes of a kind; found: {count}; possible: fewer"
        )
