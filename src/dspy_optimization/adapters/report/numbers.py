"""Numbers as people read them."""

import math


def per_hundred(share: float) -> str:
    """Return a share as cases in a hundred, without its sign: 23, 2.5."""
    cases = abs(share) * 100
    if cases >= 9.95 or math.isclose(cases, round(cases), abs_tol=0.05):
        return f"{cases:.0f}"
    return f"{cases:.1f}"


def percent(share: float) -> str:
    """Return a share as a percentage: 62%, 61.5%."""
    return f"{f'{share * 100:.1f}'.removesuffix('.0')}%"


def number(value: float) -> str:
    """Return a number with three digits that count, thousands set apart, never an exponent that is not needed."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.2g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def signed(value: float) -> str:
    """Return a number with its sign; a true minus."""
    text = number(abs(value))
    if text == "0":
        return "0"
    return f"+{text}" if value > 0 else f"−{text}"


def p_text(p_value: float) -> str:
    """Return a p-value as it is written, with spaces that do not break: p = 0.013, p < 0.0001."""
    if p_value < 1e-4:
        return "p\u00a0<\u00a00.0001"
    return f"p\u00a0=\u00a0{p_value:.2g}" if p_value < 0.995 else "p\u00a0=\u00a01"


def dollars(cost_usd: float) -> str:
    """Return an amount; four digits where a cent is too coarse."""
    if cost_usd == 0:
        return "$0"
    if cost_usd < 0.0001:
        return "less than $0.0001"
    return f"${cost_usd:,.2f}" if cost_usd >= 0.1 else f"${cost_usd:.4f}".rstrip("0")


def duration(seconds: float) -> str:
    """Return a time: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: 1 call, 1,200 calls."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"
