"""How threads share the interpreter of a process, and processes the processor.

An answer of a model passes through several threads, and at Python's 5 ms each of them may wait that long: a single
optimization gets more calls a second with 0.5 ms. But every thread that waits asks again after each such while, so with
many optimizations in one process asking takes more of the processor than working. Our own measurements:
docs/performance.md, throughput and the service under load.
"""

import gc
import os
import sys

SHORT_SECONDS = 0.0005
USUAL_SECONDS = 0.005
"""What Python begins with."""
BEHIND = 10
"""Niceness of a process that works while others answer: beside one of those it gets a tenth of a core."""


def share_interpreter(running: int) -> None:
    """Set how soon threads of this process hand over, by how many optimizations run in it."""
    sys.setswitchinterval(min(SHORT_SECONDS * max(running, 1), USUAL_SECONDS))


def settle() -> None:
    """Let garbage collection pass over what is there now; for a process that has just started.

    Modules, routes and connections stay to the end. A full collection that walks them stops every thread for about a
    quarter of a second: docs/performance.md, the service under load.
    """
    gc.collect()
    gc.freeze()


def give_way() -> None:
    """Let other processes go first, such as those that somebody waits for; ours takes what they leave.

    Counts among the processes of one session or container; where the system gives each a share of its own, nothing
    changes.
    """
    if hasattr(os, "nice"):
        os.nice(max(BEHIND - os.nice(0), 0))
