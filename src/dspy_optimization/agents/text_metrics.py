"""Comparing texts: equal, equal but for form, by words, by likeness of characters."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dspy_optimization.agents.allow_list import ForeignCode
from dspy_optimization.agents.field_metric import as_text, brief
from dspy_optimization.agents.metric import Score
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

Embed: TypeAlias = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Texts in, one vector a text out; vectors of one length, not all zero."""

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def normalized(text: str) -> str:
    """Return the text without case, punctuation, articles and extra spaces.

    As in SQuAD's evaluation, with three departures: Unicode (NFKC, every script's punctuation); a sign, a point or
    a comma that belongs to a number stays, so that -5 is not 5 and 3.5 is not 35; and a text that is nothing but
    articles or punctuation keeps them, so that the option "A" is not empty.
    Source: Rajpurkar et al. 2016, the official evaluation script.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(
        letter
        for position, letter in enumerate(folded)
        if not unicodedata.category(letter).startswith("P") or _is_numeric_mark(folded, position)
    )
    bare = " ".join(_ARTICLE.sub(" ", kept).split())
    return bare or " ".join(kept.split()) or " ".join(folded.split())


def _is_numeric_mark(text: str, position: int) -> bool:
    letter = text[position]
    before, after = text[position - 1 : position], text[position + 1 : position + 2]
    if letter in ".,":
        return after.isdigit() and (before.isdigit() or (letter == "." and not before.isalnum()))
    return letter == "-" and (after.isdigit() or after == ".") and not before.isalnum()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactMatch:
    """1 when the values are equal: numbers by value, anything else letter by letter as text or JSON."""

    def compare(self, wanted: Json, found: Json) -> Score:
        """Return 1 or 0."""
        if _is_number(wanted) and _is_number(found):
            return _verdict(wanted == found, wanted, found)
        return _verdict(as_text(wanted) == as_text(found), wanted, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizedMatch:
    """1 when the values are equal but for case, punctuation, articles and spaces."""

    def compare(self, wanted: Json, found: Json) -> Score:
        """Return 1 or 0."""
        return _verdict(normalized(as_text(wanted)) == normalized(as_text(found)), wanted, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contains:
    """1 when the answer contains what was expected, as whole words, but for case, punctuation, articles, spaces."""

    def compare(self, wanted: Json, found: Json) -> Score:
        """Return 1 or 0."""
        inside = f" {normalized(as_text(wanted))} " in f" {normalized(as_text(found))} "
        if inside:
            return _verdict(True, wanted, found)
        return Score(value=0.0, feedback=f"Expected an answer that contains {brief(wanted)}; got {brief(found)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenF1:
    """The harmonic mean of precision and recall over normalized words. Source: Rajpurkar et al. 2016 (SQuAD)."""

    def compare(self, wanted: Json, found: Json) -> Score:
        """Return the F1, 0 to 1, and which words are missing and which too many."""
        expected = Counter(normalized(as_text(wanted)).split())
        given = Counter(normalized(as_text(found)).split())
        shared = (expected & given).total()
        if expected == given:
            return _verdict(True, wanted, found)
        value = 2.0 * shared / (expected.total() + given.total())
        differences = [
            f"{what}: {', '.join(list(words)[:20])}"
            for what, words in (("missing words", expected - given), ("words too many", given - expected))
            if words
        ]
        return Score(
            value=value,
            feedback=f"Expected {brief(wanted)}; got {brief(found)}; {'; '.join(differences)}. Word F1 {value:.2f}.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """How alike two texts are, 0 to 1.

    Without `embed` it is lexical: the cosine of character trigram counts, 1 + log each. It knows no meaning:
    "big" and "large" are as far apart as any two words. An `embed` function makes it semantic.
    """

    embed: Embed | None = None

    def compare(self, wanted: Json, found: Json) -> Score:
        """Return the cosine; below 0 counts as 0."""
        expected, given = as_text(wanted), as_text(found)
        value = _lexical(expected, given) if self.embed is None else _embedded(self.embed, expected, given)
        if value >= 1.0:
            return _verdict(True, wanted, found)
        return Score(value=value, feedback=f"Expected {brief(wanted)}; got {brief(found)}. Similarity {value:.2f}.")


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _verdict(equal: bool, wanted: Json, found: Json) -> Score:
    if equal:
        return Score(value=1.0, feedback=f"Correct: {brief(found)}.")
    return Score(value=0.0, feedback=f"Expected {brief(wanted)}; got {brief(found)}.")


def _lexical(one: str, other: str) -> float:
    even = [f" {' '.join(unicodedata.normalize('NFKC', text).casefold().split())} " for text in (one, other)]
    if even[0] == even[1]:
        return 1.0
    first, second = ({gram: 1.0 + math.log(count) for gram, count in Counter(_trigrams(text)).items()} for text in even)
    product = sum(weight * second.get(gram, 0.0) for gram, weight in first.items())
    norms = math.sqrt(sum(weight**2 for weight in first.values()) * sum(weight**2 for weight in second.values()))
    return min(1.0, product / norms) if norms else 0.0


def _trigrams(text: str) -> list[str]:
    return [text[start : start + 3] for start in range(len(text) - 2)]


def _embedded(embed: Embed, one: str, other: str) -> float:
    with ForeignCode("the embedding function failed", "mend it, or leave it out for lexical similarity"):
        first, second = (list(map(float, vector)) for vector in embed([one, other]))
        product = sum(a * b for a, b in zip(first, second, strict=True))
        norms = math.hypot(*first) * math.hypot(*second)
    if not (math.isfinite(product) and math.isfinite(norms) and norms > 0.0):
        raise InvalidRequestError(
            f"finite vectors that are not all zero are wanted of the embedding function, found a product of lengths of "
            f"{norms} for {brief(one)} and {brief(other)}; possible: mend it, or leave it out for lexical similarity"
        )
    return min(1.0, max(0.0, product / norms))
