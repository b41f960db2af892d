"""Threads hand over the sooner the fewer optimizations run; a started process settles, a worker stands back."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dspy_optimization.adapters.interpreter import BEHIND, SHORT_SECONDS, USUAL_SECONDS, settle, share_interpreter


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("running", "seconds"),
    [(0, SHORT_SECONDS), (1, SHORT_SECONDS), (3, 3 * SHORT_SECONDS), (10, USUAL_SECONDS), (1000, USUAL_SECONDS)],
)
def test_the_interval_grows_with_what_runs_up_to_pythons_own(running: int, seconds: float) -> None:
    share_interpreter(running)

    assert seconds == pytest.approx(sys.getswitchinterval())


def test_what_is_there_when_a_process_settles_is_not_looked_at_again() -> None:
    there: list[object] = [[]]
    try:
        settle()

        assert not any(one is there for one in gc.get_objects())
        assert gc.get_freeze_count() > len(sys.modules)
    finally:
        gc.unfreeze()


@pytest.mark.skipif(sys.platform == "win32", reason="wanted: niceness; found: Windows, which has none")
@pytest.mark.parametrize(("before", "after"), [(0, BEHIND), (3, BEHIND), (BEHIND + 5, BEHIND + 5)])
def test_giving_way_never_goes_before_where_somebody_put_it(before: int, after: int) -> None:
    """Run in processes of their own: who stood back cannot come forward again."""
    told = "import os; from dspy_optimization.adapters.interpreter import give_way; give_way(); print(os.nice(0))"
    behind = ["nice", "-n", str(before - os.nice(0)), sys.executable, "-c", told]

    assert str(after) == subprocess.run(behind, check=True, capture_output=True, text=True).stdout.strip()
