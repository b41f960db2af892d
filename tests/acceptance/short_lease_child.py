"""`dspy-opt` whose processes are taken for dead sooner: the first word is the lease in seconds, the rest is its own.

There is no setting for the lease, and a test that waits for fifteen seconds at every blow is not run often.
"""

import sys
from functools import partial

from dspy_optimization.cli import main
from dspy_optimization.web import app

if __name__ == "__main__":
    app.open_serving = partial(app.open_serving, lease_seconds=float(sys.argv.pop(1)))
    main()
