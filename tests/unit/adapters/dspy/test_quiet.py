"""Silence for searches, and for nobody else."""

import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import dspy
import pytest
from dspy.utils.parallelizer import ParallelExecutor

from dspy_optimization.adapters.dspy.quiet import QuietStream, quiet


def say(text: str) -> None:
    """Write to both streams, and log as DSPy does."""
    sys.stdout.write(text)
    sys.stderr.writelines([text])
    logging.getLogger("dspy.somewhere").error(text)


def test_what_is_written_inside_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    """And what is written before and after is not."""
    sys.stdout.write("before ")
    with quiet():
        say("inside ")
    sys.stdout.write("after")

    assert ("before after", "") == tuple(capsys.readouterr())


def test_operators_get_their_log_lines() -> None:
    """Silence is for the terminal."""
    kept: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    handler = Keeping()
    logging.getLogger("dspy").addHandler(handler)
    with quiet():
        say("inside")
    logging.getLogger("dspy").removeHandler(handler)

    assert ["inside"] == kept


def test_threads_that_dspy_starts_are_quiet_too(capsys: pytest.CaptureFixture[str]) -> None:
    """They inherit DSPy's settings."""
    with quiet():
        dspy.Parallel(num_threads=2, disable_progress_bar=False)([(say, {"text": "x"}) for _ in range(4)])

    assert ("", "") == tuple(capsys.readouterr())


def test_searches_may_end_in_any_order() -> None:
    """Each has a thread of its own; the streams people gave us come back with the last."""
    out, err = sys.stdout, sys.stderr
    searches = [Search(), Search(), Search()]
    searches[1].end()
    assert isinstance(sys.stdout, QuietStream)
    searches[0].end()
    searches[2].end()

    assert (out, err) == (sys.stdout, sys.stderr)


class Search:
    """A thread that is quiet until it is ended."""

    def __init__(self) -> None:
        self._begun, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._search)
        self._thread.start()
        assert self._begun.wait(10.0)

    def _search(self) -> None:
        with quiet():
            self._begun.set()
            self._over.wait(10.0)

    def end(self) -> None:
        """Return when it is loud again."""
        self._over.set()
        self._thread.join()


def test_a_stream_somebody_else_put_there_stays() -> None:
    """Whoever captures output in the middle of a search keeps it."""
    out = sys.stdout
    with quiet():
        mine = sys.stdout = QuietStream(sys.stdout)

    assert sys.stdout is mine
    assert mine.isatty() == out.isatty()
    sys.stdout = out


def test_searches_that_always_overlap_leave_nothing_behind() -> None:
    """A worker that is never idle goes on for ever: the streams of searches that are over are let go."""
    before = Search()
    for _ in range(20):
        after = Search()
        before.end()
        before = after
    behind = sys.stdout
    streams = 0
    while isinstance(behind, QuietStream):
        behind, streams = behind.behind, streams + 1
    before.end()

    assert 1 == streams


def test_searches_that_evaluate_at_once_do_not_break_each_other() -> None:
    """DSPy empties tqdm's list of bars before every evaluation, in the middle of what other threads do with theirs."""

    def evaluate() -> None:
        with quiet(), dspy.context(max_errors=10):
            for _ in range(100):
                ParallelExecutor(num_threads=1, disable_progress_bar=True).execute(str, [1])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    with ThreadPoolExecutor(30) as pool:
        searches = [pool.submit(evaluate) for _ in range(30)]
    sys.setswitchinterval(interval)

    assert [None] * 30 == [search.exception() for search in searches]
