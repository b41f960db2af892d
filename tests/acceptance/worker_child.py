"""A worker process: serves jobs until it is told to go, and says when it is ready."""

import signal
import sys
import threading

from dspy_optimization.serving import ServiceRole, open_serving
from dspy_optimization.settings import read_settings

if __name__ == "__main__":
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    with open_serving(read_settings(), ServiceRole.WORKER) as serving:
        sys.stdout.write(f"{serving.worker.id}\n")
        sys.stdout.flush()
        told.wait()
