"""The panel on a terminal: phase, best score, spend against caps, the newest candidates."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dspy_optimization.adapters.report.numbers import count, dollars, duration, number, signed
from dspy_optimization.adapters.report.visible import visible
from dspy_optimization.evaluation.ledger import Spend
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.events import RecordedEvent
from dspy_optimization.optimization.request import OptimizationStatus, Wish
from dspy_optimization.optimization.standing import Standing, View

_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARKS = 40
_PHASES = ("baseline", "search", "gate", "ablation")
_BAR_WIDTH = 28


class LivePanel:
    """Redraws itself in place."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._note: str | None = None

    @classmethod
    def open(cls) -> "LivePanel":
        """Return a panel on standard output, drawn at once."""
        live = Live(console=Console(), auto_refresh=False, vertical_overflow="crop")
        live.start()
        return cls(live)

    def tell(self, event: RecordedEvent) -> None:
        """The panel shows states, not events."""

    def show(self, view: View) -> None:
        """Draw the panel anew."""
        self._live.update(panel(view, self._note), refresh=True)

    def note(self, text: str) -> None:
        """Say it at the foot of the panel from now on."""
        self._note = text

    def end(self) -> None:
        """Leave the last state standing and give the terminal back."""
        self._live.stop()


def panel(view: View, note: str | None = None) -> Panel:
    """Return what the terminal shows of a moment."""
    standing, optimization = view.standing, view.optimization
    parts: list[RenderableType] = [_phases(standing), _facts(view)]
    if standing.candidates:
        parts.append(_candidates(standing))
    parts += [Text(f"! {visible(one)}", style="yellow") for one in standing.notes]
    if note is not None and optimization.status is OptimizationStatus.RUNNING:
        parts.append(Text(note, style="bold"))
    title = f"{visible(view.agent)} · {str(optimization.request.id)[:13]} · {optimization.status.value}"
    return Panel(Group(*parts), title=title, subtitle=_hint(view), padding=(0, 1), width=None)


def spark(course: Sequence[float], width: int = _SPARKS) -> str:
    """Return the course of the best score as blocks; the lowest is the first score, the highest the last."""
    if not course:
        return ""
    picked = (
        [course[round(place * (len(course) - 1) / (width - 1))] for place in range(width)]
        if (len(course) > width)
        else list(course)
    )
    low, high = min(picked), max(picked)
    if high == low:
        return _BLOCKS[0] * len(picked)
    return "".join(_BLOCKS[round((score - low) / (high - low) * (len(_BLOCKS) - 1))] for score in picked)


def _phases(standing: Standing) -> Text:
    line = Text()
    reached = _PHASES.index(standing.phase) if standing.phase in _PHASES else -1
    for place, phase in enumerate(_PHASES):
        sign, style = ("✓", "green") if place < reached else ("▶", "bold") if place == reached else ("·", "dim")
        line.append(f"{sign} {phase}   ", style=style)
    if standing.phase == "search" and standing.algorithm is not None:
        of = f"/{standing.iterations}" if standing.iterations is not None else ""
        at = f": {visible(standing.step)} {standing.iteration}{of}" if standing.step is not None else ""
        line.append(f"{visible(standing.algorithm)}{at}", style="cyan")
    return line


def _facts(view: View) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    standing, limits = view.standing, view.optimization.request.constraints.limits
    if standing.best is not None:
        gain = ""
        if standing.baseline is not None and standing.best != standing.baseline:
            gain = f"  {signed(standing.best - standing.baseline)} on val; only the sealed split proves it"
        table.add_row("best", Text(number(standing.best), style="bold"), Text(f"{spark(standing.course)}{gain}"))
    for name, used, limit, shown in _spends(view.bill.total, limits, view.optimization.elapsed_seconds):
        bar: RenderableType = ""
        if limit is not None:
            bar = ProgressBar(total=limit, completed=min(used, limit), width=_BAR_WIDTH)
        table.add_row(name, shown, bar)
    roles = [f"{role.value} {spend.calls:,}" for role, spend in view.bill.by_role.items() if spend.calls]
    if view.bill.answered_from_ledger:
        roles.append(f"{count(view.bill.answered_from_ledger, 'answer')} known already")
    if roles:
        table.add_row("by role", Text(" · ".join(roles)), "")
    left = standing.seconds_left(view.bill, view.now)
    if left is not None and view.optimization.status is OptimizationStatus.RUNNING:
        table.add_row(
            "left", f"about {duration(left)}", Text(f"in {visible(standing.step or standing.phase)}", style="dim")
        )
    return table


def _spends(total: Spend, limits: Limits, seconds: float) -> Sequence[tuple[str, float, float | None, str]]:
    """Return name, amount, cap and text of each kind of spend."""
    calls, tokens = limits.max_lm_calls, limits.max_tokens
    rows: list[tuple[str, float, float | None, str]] = [
        ("calls", total.calls, calls, f"{total.calls:,}" + (f" / {calls:,}" if calls is not None else "")),
        ("tokens", total.tokens, tokens, f"{total.tokens:,}" + (f" / {tokens:,}" if tokens is not None else "")),
    ]
    if total.cost_usd or limits.max_cost_usd is not None:
        cap = f" / {dollars(limits.max_cost_usd)}" if limits.max_cost_usd is not None else ""
        rows.append(("dollars", total.cost_usd, limits.max_cost_usd, f"{dollars(total.cost_usd)}{cap}"))
    cap = f" / {duration(limits.max_seconds)}" if limits.max_seconds is not None else ""
    rows.append(("time", seconds, limits.max_seconds, f"{duration(seconds)}{cap}"))
    return rows


def _candidates(standing: Standing) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for name in ("candidate", "by"):
        table.add_column(name, no_wrap=True)
    for name in ("on val", "to baseline", "examples", "after calls"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in reversed(standing.candidates):
        change = "" if standing.baseline is None or not row.is_complete else signed(row.score - standing.baseline)
        best = row.is_complete and row.score == standing.best
        table.add_row(
            row.fingerprint[:8],
            visible(row.algorithm),
            number(row.score),
            change,
            f"{row.n_examples}",
            f"{row.paid_calls:,}",
            style="bold" if best else "" if row.is_complete else "dim",
        )
    return table


def _hint(view: View) -> str | None:
    if view.optimization.status is not OptimizationStatus.RUNNING:
        return None
    if view.optimization.wish is Wish.PAUSE:
        return "pausing after the calls in flight …"
    if view.optimization.wish is Wish.CANCEL:
        return "cancelling after the calls in flight …"
    return "Ctrl-C pauses (resumable) · twice aborts"
