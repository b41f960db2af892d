from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from dspy_optimization.cli.displays import DisplayKind, Lines, open_display
from dspy_optimization.cli.event_lines import json_line, plain_line
from dspy_optimization.evaluation.ledger import Bill, Spend
from dspy_optimization.evaluation.model import Role
from dspy_optimization.events import Event, EventType, Json, RecordedEvent
from dspy_optimization.optimization.standing import Standing

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = UUID(int=7)


def event(kind: EventType, data: Mapping[str, Json] | None = None, seconds: float = 0.0) -> Event:
    return Event(type=kind, optimization_id=RUN, at=NOON + timedelta(seconds=seconds), data=data or {})


def trial(score: float, algorithm: str = "gepa", n: int = 30, split: str = "val") -> Event:
    data: dict[str, Json] = {
        "algorithm": algorithm, "candidate": "c" * 64, "split": split, "n_examples": n, "score": score, "paid_calls": 5,
    }  # fmt: skip
    return event(EventType.TRIAL_RECORDED, data)


def told(*events: Event) -> Standing:
    standing = Standing(n_val=30, n_test=40)
    for one in events:
        standing = standing.after(one)
    return standing


def test_best_and_course_come_from_complete_trials_on_val() -> None:
    """A trial on a few examples, or on train, cannot be compared."""
    standing = told(
        trial(0.4, "baseline"), trial(0.9, n=5), trial(0.6), trial(1.0, split="train"), trial(0.5)
    )  # fmt: skip

    assert (0.4, 0.6, (0.4, 0.6, 0.6)) == (standing.baseline, standing.best, standing.course)
    assert [True, False, True, True] == [row.is_complete for row in standing.candidates]
    assert 5 == len(told(*(trial(n / 10) for n in range(9))).candidates)


def test_a_step_of_the_search_is_timed_from_when_it_was_first_met() -> None:
    """Steps may take turns; each has its own pace."""
    outer: dict[str, Json] = {"algorithm": "brs", "phase": "random search", "iterations": 4}
    standing = told(
        event(EventType.PHASE_STARTED, {"phase": "search"}),
        event(EventType.ALGORITHM_STARTED, {"algorithm": "brs"}),
        event(EventType.PROGRESS, {**outer, "iteration": 0}, 10),
        event(EventType.PROGRESS, {"algorithm": "brs", "phase": "set 1", "iteration": 1, "iterations": None}, 15),
    )

    assert standing.seconds_left(Bill(), NOON + timedelta(seconds=20)) is None
    later = standing.after(event(EventType.PROGRESS, {**outer, "iteration": 1}, 20))
    assert 30.0 == later.seconds_left(Bill(), NOON + timedelta(seconds=20))
    assert ("random search", 1, 4) == (later.step, later.iteration, later.iterations)


@pytest.mark.parametrize(
    ("phase", "labels", "left"),
    [("baseline", {"baseline": 10}, 20.0), ("gate", {"gate": 60}, 10 / 3), ("gate", {}, None), ("ablation", {}, None)],
)
def test_other_phases_are_timed_by_their_calls(phase: str, labels: dict[str, int], left: float | None) -> None:
    """Baseline: the val split once; gate: the test split twice."""
    standing = told(event(EventType.PHASE_STARTED, {"phase": phase}))
    bill = Bill(by_role={Role.TASK: Spend()}, by_label={name: Spend(calls=n) for name, n in labels.items()})

    found = standing.seconds_left(bill, NOON + timedelta(seconds=10))

    assert left == (None if found is None else pytest.approx(found))
    assert replace(standing, phase_began=None).seconds_left(bill, NOON) is None


def test_what_a_person_must_see_is_kept_as_a_note() -> None:
    """The newest three."""
    standing = told(
        event(EventType.BUDGET_WARNING, {"share": 0.5, "cap": "max_lm_calls", "limit": 100}),
        event(EventType.MODEL_FALLBACK, {"role": "task", "wanted": "a", "used": "b"}),
        event(EventType.ALGORITHM_ENDED, {"algorithm": "gepa", "error": "boom"}),
        event(EventType.TRACKING_FAILED, {"error": "away"}),
        event(EventType.ALGORITHM_ENDED, {"algorithm": "gepa"}),
        event(EventType.VERDICT),
    )

    assert ("task: b answers for a", "gepa broke: boom", "MLflow did not take it: away") == standing.notes


LINES: list[tuple[EventType, dict[str, Json], str]] = [
    (
        EventType.OPTIMIZATION_STARTED,
        {"target": "t", "algorithms": ["a", "b"], "objectives": ["o"]},
        "started: t, by a, b, for o",
    ),
    (EventType.OPTIMIZATION_ACCEPTED, {"estimated_seconds": 60.0}, "accepted; about 1 min once it runs"),
    (EventType.OPTIMIZATION_QUEUED, {}, "waits for a worker"),
    (EventType.OPTIMIZATION_QUEUED, {"retry_in_seconds": 60.0}, "waits for a worker, to go on in 1 min"),
    (EventType.OPTIMIZATION_RESUMED, {}, "resumed: what was answered before is not paid again"),
    (EventType.OPTIMIZATION_PAUSED, {}, "paused"),
    (EventType.OPTIMIZATION_PAUSED, {"error": "away"}, "paused: away"),
    (EventType.OPTIMIZATION_CANCELLED, {}, "cancelled; the best so far is kept"),
    (EventType.OPTIMIZATION_FAILED, {"error": "x\ny"}, "failed: x y"),
    (
        EventType.OPTIMIZATION_COMPLETED,
        {"verdict": "improved", "ended_because": "finished", "lm_calls": 9, "cost_usd": 1.5},
        "completed: improved (finished), 9 calls, $1.50",
    ),
    (EventType.PHASE_STARTED, {"phase": "gate"}, "phase gate"),
    (EventType.ALGORITHM_STARTED, {"algorithm": "a", "reason": "r"}, "a begins: r"),
    (EventType.ALGORITHM_ENDED, {"algorithm": "a", "outcome": "failed", "error": "e"}, "a ended, failed, best –: e"),
    (
        EventType.PROGRESS,
        {
            "algorithm": "a",
            "phase": "p",
            "iteration": 1,
            "iterations": 3,
            "score": 0.5,
            "best_score": 0.75,
            "lm_calls": 4,
            "cost_usd": 0,
            "elapsed_seconds": 61,
        },
        "a p 1/3, score 0.5, best 0.75; 4 calls, $0, 1 min 1 s",
    ),
    (EventType.PROGRESS, {"algorithm": "a", "phase": "p", "iteration": 1}, "a p 1, best –; – calls, $0"),
    (
        EventType.TRIAL_RECORDED,
        {"candidate": "123456789", "algorithm": "a", "score": 1.0, "n_examples": 3, "split": "val", "paid_calls": 2},
        "candidate 12345678 of a: 1 on 3 val examples, after 2 calls",
    ),
    (
        EventType.BUDGET_WARNING,
        {"share": 0.8, "cap": "max_tokens", "limit": 50},
        "warning: 80% of max_tokens = 50 is used",
    ),
    (
        EventType.MODEL_FALLBACK,
        {"role": "task", "wanted": "w", "used": "u", "reason": "r"},
        "warning: for the role task u answers instead of w: r",
    ),
    (EventType.DEVICE_FALLBACK, {"device": "cuda:0", "reason": "it is full"}, "warning: it is full"),
    (
        EventType.VERDICT,
        {"verdict": "improved", "reason": "R."},
        "verdict on the sealed test split: improved. R.",
    ),
    (EventType.TRACKING_RECORDED, {"run_id": "7"}, 'tracking.recorded {"run_id": "7"}'),
    (
        EventType.EXPERIMENT_ALERT,
        {"experiment_id": "e", "alert": "not_significant_in_7_days", "reason": "R."},
        "experiment e: not_significant_in_7_days. R.",
    ),
    (
        EventType.EXPERIMENT_RESULT,
        {"experiment_id": "e", "winner": "optimized", "confidence": 0.97, "deployment_recommended": True},
        "experiment e ended: optimized, confidence 0.97, deployment recommended",
    ),
    (
        EventType.EXPERIMENT_RESULT,
        {"experiment_id": "e", "winner": "baseline", "confidence": 0.0, "deployment_recommended": False},
        "experiment e ended: baseline, confidence 0",
    ),
]


@pytest.mark.parametrize(("kind", "data", "line"), LINES)
def test_every_event_is_one_line(kind: EventType, data: dict[str, Json], line: str) -> None:
    """With the time in front."""
    found = plain_line(RecordedEvent(id=1, event=event(kind, data)))

    assert line == found[10:]
    assert {one for one, _, _ in LINES} | {EventType.TRACKING_FAILED} == set(EventType)


def test_text_of_models_cannot_repaint_the_terminal() -> None:
    """Control characters are spelled out."""
    assert "⟨U+001B⟩[2J" in plain_line(
        RecordedEvent(id=1, event=event(EventType.OPTIMIZATION_FAILED, {"error": "\x1b[2J"}))
    )
    assert '"id": 1' in json_line(RecordedEvent(id=1, event=event(EventType.VERDICT)))


def test_without_a_terminal_a_display_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain if nothing was asked for; nothing if nothing is wanted; JSON whatever was asked for."""
    one = RecordedEvent(id=1, event=event(EventType.PHASE_STARTED, {"phase": "gate"}))
    for kind, as_json in (
        (None, False),
        (DisplayKind.PLAIN, False),
        (DisplayKind.NONE, False),
        (DisplayKind.LIVE, True),
    ):
        display = open_display(kind, as_json=as_json)
        assert isinstance(display, Lines)
        display.tell(one)
        display.note("a note")
        display.end()

    found = capsys.readouterr()
    assert [True, True, False] == ["phase gate" in line for line in found.out.splitlines()]
    assert "a note\n" * 4 == found.err
