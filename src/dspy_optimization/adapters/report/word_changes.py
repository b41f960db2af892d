"""What changed in an agent, word by word, demo by demo and setting by setting."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from dspy_optimization.agents.candidate import Candidate, ComponentName, canonical_json
from dspy_optimization.agents.component_settings import ComponentSettings
from dspy_optimization.events import Json

LONGEST_BY_WORD = 4_000
"""Tokens up to which texts are compared word by word; longer ones line by line, for the work grows as the square."""

AS_THE_AGENT = "as the agent says"
"""What is said of a setting that a candidate leaves to its agent."""

_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class Edit(StrEnum):
    """What happened to a piece of text."""

    KEPT = "kept"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of text with one fate."""

    edit: Edit
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    """One way a component is asked, before and after."""

    name: str
    """model, parameters, kind or tools."""
    before: str
    """In words; `AS_THE_AGENT` where the candidate says nothing."""
    after: str

    @property
    def words(self) -> str:
        """Both in one phrase."""
        return f"{self.name}: {self.before} → {self.after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentChange:
    """One component before and after."""

    component: ComponentName
    frozen: bool
    words: tuple[Piece, ...]
    """The instructions; one kept piece when they did not change."""
    demos_added: tuple[Mapping[str, Json], ...]
    demos_removed: tuple[Mapping[str, Json], ...]
    demos_kept: int
    demos_reordered: bool
    """True when the same demos stand in another order and nothing else changed about them."""
    settings: tuple[SettingChange, ...] = ()
    """Those that differ."""

    @property
    def instructions_changed(self) -> bool:
        """Whether any word differs."""
        return any(piece.edit is not Edit.KEPT for piece in self.words)

    @property
    def changed(self) -> bool:
        """Whether anything differs."""
        demos_changed = self.demos_added or self.demos_removed or self.demos_reordered
        return bool(self.instructions_changed or demos_changed or self.settings)

    @property
    def words_added(self) -> int:
        """Words that are new."""
        return _words(self.words, Edit.ADDED)

    @property
    def words_removed(self) -> int:
        """Words that are gone."""
        return _words(self.words, Edit.REMOVED)


def component_changes(
    baseline: Candidate, optimized: Candidate, frozen: frozenset[ComponentName]
) -> tuple[ComponentChange, ...]:
    """Return every component of either in the order of their names, changed or not."""
    return tuple(_change(name, baseline, optimized, name in frozen) for name in _names(baseline, optimized))


def word_diff(before: str, after: str) -> tuple[Piece, ...]:
    """Return the pieces in reading order; what was removed stands before what replaced it.

    Kept and added pieces together are `after`, kept and removed ones `before`.
    """
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    if len(old) + len(new) > LONGEST_BY_WORD:
        old, new = _LINE.findall(before), _LINE.findall(after)
    pieces: list[Piece] = []
    for tag, old_from, old_to, new_from, new_to in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            _append(pieces, Edit.KEPT, old[old_from:old_to])
            continue
        _append(pieces, Edit.REMOVED, old[old_from:old_to])
        _append(pieces, Edit.ADDED, new[new_from:new_to])
    return tuple(_calmed(pieces))


def _change(name: ComponentName, baseline: Candidate, optimized: Candidate, frozen: bool) -> ComponentChange:
    before, after = baseline.components.get(name), optimized.components.get(name)
    old_demos = before.demos if before is not None else ()
    new_demos = after.demos if after is not None else ()
    added, removed = _only_in(new_demos, old_demos), _only_in(old_demos, new_demos)
    same = not added and not removed
    return ComponentChange(
        settings=tuple(
            _setting_changes(
                before.settings if before is not None else ComponentSettings(),
                after.settings if after is not None else ComponentSettings(),
            )
        ),
        component=name,
        frozen=frozen,
        words=word_diff(
            before.instructions if before is not None else "", after.instructions if after is not None else ""
        ),
        demos_added=added,
        demos_removed=removed,
        demos_kept=len(new_demos) - len(added),
        demos_reordered=same
        and [canonical_json(one) for one in old_demos] != [canonical_json(one) for one in new_demos],
    )


def settings_in_words(settings: ComponentSettings) -> dict[str, str]:
    """Return setting → what a candidate says of it, in words; what it does not say is left out."""
    words: dict[str, str] = {}
    if settings.model is not None:
        words["model"] = settings.model
    if settings.parameters:
        words["parameters"] = ", ".join(f"{name} {value}" for name, value in settings.parameters.items())
    if settings.kind is not None:
        words["kind"] = settings.kind.value
    if settings.tools is not None:
        words["tools"] = ", ".join(settings.tools) or "none"
    return words


def _setting_changes(before: ComponentSettings, after: ComponentSettings) -> Iterator[SettingChange]:
    old, new = settings_in_words(before), settings_in_words(after)
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield SettingChange(name=name, before=old.get(name, AS_THE_AGENT), after=new.get(name, AS_THE_AGENT))


def _names(*candidates: Candidate) -> Sequence[ComponentName]:
    return sorted({name for candidate in candidates for name in candidate.components})


def _only_in(
    these: Sequence[Mapping[str, Json]], those: Sequence[Mapping[str, Json]]
) -> tuple[Mapping[str, Json], ...]:
    left = Counter(canonical_json(demo) for demo in those)
    found: list[Mapping[str, Json]] = []
    for demo in these:
        text = canonical_json(demo)
        if left[text] > 0:
            left[text] -= 1
        else:
            found.append(demo)
    return tuple(found)


def _append(pieces: list[Piece], edit: Edit, tokens: Sequence[str]) -> None:
    if tokens:
        pieces.append(Piece(edit=edit, text="".join(tokens)))


def _calmed(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Join changes that only a space keeps apart: a phrase replaced reads better than every other word."""
    calmed: list[Piece] = []
    run: list[Piece] = []
    for index, piece in enumerate(pieces):
        space = not piece.text.strip() and "\n" not in piece.text
        if piece.edit is not Edit.KEPT or (run and space and index + 1 < len(pieces)):
            run.append(piece)
            continue
        calmed += [*_joined(run), piece]
        run = []
    return [*calmed, *_joined(run)]


def _joined(run: Sequence[Piece]) -> Sequence[Piece]:
    """Return a run of changes as one removed and one added piece; as it is when it is of one kind."""
    if {Edit.ADDED, Edit.REMOVED} - {piece.edit for piece in run}:
        return run
    removed = "".join(piece.text for piece in run if piece.edit is not Edit.ADDED)
    added = "".join(piece.text for piece in run if piece.edit is not Edit.REMOVED)
    return (Piece(edit=Edit.REMOVED, text=removed), Piece(edit=Edit.ADDED, text=added))


def _words(pieces: Sequence[Piece], edit: Edit) -> int:
    return sum(len(re.findall(r"\w+", piece.text)) for piece in pieces if piece.edit is edit)
