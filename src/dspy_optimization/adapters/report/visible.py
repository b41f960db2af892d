"""Text from agents and datasets, made safe to look at."""

import unicodedata

_KEPT = frozenset("\n\t")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Controls, formatting (among it what turns the direction of writing around), half characters, odd line ends."""
_JOINERS = frozenset("\u200c\u200d\ufe0f")
"""Needed to write Persian, Hindi and emoji."""


def visible(text: str) -> str:
    """Return the text with every character that acts instead of being seen spelled out, such as ⟨U+202E⟩.

    A terminal obeys escape sequences and both terminal and browser obey direction marks: text from a model must
    not be able to repaint what stands beside it. The result can be encoded, whatever came in.
    """
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(character) if _acts(character) else character for character in text)


def shortened(text: str, limit: int) -> str:
    """Return at most `limit` characters of the text, saying how many are left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit].rstrip()} … ({len(text) - limit:,} more characters)"


def _acts(character: str) -> bool:
    return character not in _KEPT and character not in _JOINERS and unicodedata.category(character) in _HIDDEN


def _spelled(character: str) -> str:
    return f"⟨U+{ord(character):04X}⟩"
