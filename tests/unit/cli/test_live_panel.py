import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from rich.console import Console
from rich.live import Live

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.agents.objective import Objective
from dspy_optimization.cli.displays import DisplayKind, open_display
from dspy_optimization.cli.live_panel import LivePanel, panel, spark
from dspy_optimization.evaluation.ledger import Bill, OptimizationId, Spend
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Role
from dspy_optimization.events import Event, EventType, RecordedEvent
from dspy_optimization.optimization.request import (
    AlgorithmChoice,
    Constraints,
    Optimization,
    OptimizationRequest,
    OptimizationStatus,
    Target,
    Wish,
)
from dspy_optimization.optimization.standing import CandidateRow, Standing, View

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row(score: float, *, complete: bool = True) -> CandidateRow:
    return CandidateRow(
        fingerprint="abcdef0123", algorithm="gepa", score=score, n_examples=30, paid_calls=1200, is_complete=complete
    )


def view(limits: Limits | None = None, **changes: object) -> View:
    request = OptimizationRequest(
        id=OptimizationId(UUID(int=7 << 100)),
        target=Target(id="orders", version=Fingerprint("0" * 64)),
        dataset=DatasetVersion("0" * 64),
        objectives=(Objective(metric="exact_match"),),
        algorithms=(AlgorithmChoice(name="gepa"),),
        constraints=Constraints(limits=limits or Limits()),
        created_at=NOON,
    )
    optimization = Optimization(
        request=request, status=OptimizationStatus.RUNNING, elapsed_seconds=65.0, updated_at=NOON
    )
    standing = Standing(
        n_val=30, n_test=40, phase="search", algorithm="gepa", step="reflect", iteration=2, iterations=8,
        steps_began={"reflect": NOON}, baseline=0.25, best=0.75, course=(0.25, 0.5, 0.75),
        candidates=(row(0.25), row(0.75), row(0.9, complete=False)), notes=("50% of max_lm_calls = 600 is used",),
    )  # fmt: skip
    bill = Bill(
        by_role={Role.TASK: Spend(calls=300, prompt_tokens=5000, cost_usd=0.25), Role.JUDGE: Spend()},
        answered_from_ledger=12,
    )
    whole = View(
        optimization=optimization, agent="orders", standing=standing, bill=bill, now=NOON + timedelta(seconds=10)
    )
    return replace(whole, **changes)


def drawn(one: View, note: str | None = None, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(panel(one, note))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_panel_answers_where_it_is_how_good_and_what_it_took() -> None:
    """Phase, step, best with its course, spend by role against caps, time left, candidates, hints."""
    text = drawn(view(Limits(max_lm_calls=600, max_tokens=9000, max_cost_usd=5.0, max_seconds=3600.0)))

    for part in (
        "orders · 00000070-0000 · running", "✓ baseline", "▶ search", "· gate", "gepa: reflect 2/8", "0.75", "▁▅█",
        "+0.5 on val",
        "300 / 600", "5,000 / 9,000", "$0.25 / $5.00", "1 min 5 s / 1 h", "task 300",
        "12 answers known already", "about 30 s", "abcdef01", "1,200", "! 50% of max_lm_calls = 600 is used",
        "Ctrl-C pauses (resumable)",
    ):  # fmt: skip
        assert part in text, f"{part}\n{text}"


def test_the_panel_fits_a_narrow_terminal_and_an_empty_beginning() -> None:
    """Nothing is known yet; nothing breaks."""
    empty = view(standing=Standing(n_val=30, n_test=40), bill=Bill())

    assert "waiting" not in drawn(empty, width=40)
    assert all(len(line) <= 40 for line in drawn(view(), width=40).splitlines())


@pytest.mark.parametrize(("wish", "hint"), [(Wish.PAUSE, "pausing after"), (Wish.CANCEL, "cancelling after")])
def test_a_wish_is_shown_until_it_is_granted(wish: Wish, hint: str) -> None:
    """And what was noted stands at the foot."""
    one = view()
    text = drawn(replace(one, optimization=replace(one.optimization, wish=wish)), "Pausing now")

    assert hint in text
    assert "Pausing now" in text


def test_a_course_becomes_a_line_of_blocks() -> None:
    """A long one is thinned out, a flat one is flat."""
    assert ("", "▁▁", "▁█") == (spark([]), spark([0.5, 0.5]), spark([0.0, 1.0]))
    assert 10 == len(spark([n / 100 for n in range(100)], width=10))


def test_the_panel_redraws_and_gives_the_terminal_back() -> None:
    """`live` is used when asked for, also where there is no terminal."""
    out = io.StringIO()
    shown = LivePanel(Live(console=Console(file=out, width=100, force_terminal=True), auto_refresh=False))
    shown._live.start()
    shown.tell(RecordedEvent(id=1, event=Event(type=EventType.VERDICT, optimization_id=UUID(int=7), at=NOON)))
    shown.note("Pausing")
    shown.show(view())
    shown.end()
    opened = open_display(DisplayKind.LIVE, as_json=False)
    opened.end()

    assert ("Pausing" in out.getvalue(), LivePanel) == (True, type(opened))
