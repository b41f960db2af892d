"""How long a thread keeps the interpreter while others wait for it.

An answer of a model passes through several threads, and at Python's 5 ms each of them may wait that long: a single
optimization gets more calls a second with 0.5 ms. But every thread that waits asks again after each such while, so with
many optimizations in one process asking takes more of the processor than working. Our own measurements:
docs/performance.md, throughput and the service under load.
"""

import sys

SHORT_SECONDS = 0.0005
USUAL_SECONDS = 0.005
"""What Python begins with."""


def share_interpreter(running: int) -> None:
    """Set how soon threads of this process hand over, by how many optimizations run in it."""
    sys.setswitchinterval(min(SHORT_SECONDS * max(running, 1), USUAL_SECONDS))
