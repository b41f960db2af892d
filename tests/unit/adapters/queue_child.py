"""A worker process without an engine: holds every job of the lane cpu until it is told `let go`, a line on its input.

Each time it says how many jobs it held at most at once since the last time.
"""

import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dspy_optimization.adapters.dbos import DbosRuntime, QueueTerms
from dspy_optimization.jobs.job import Job, Lane
from dspy_optimization.jobs.lease import Worker, WorkerId
from dspy_optimization.jobs.worker import Interruption, JobWorker, Outcome


@dataclass(slots=True)
class Holding:
    """Who holds jobs, and how many it held."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    let_go: int = 0
    now: int = 0
    most: int = 0

    def carry_out(self, job: Job, interruption: Interruption) -> Outcome:
        with self.changed:
            self.now += 1
            self.most = max(self.most, self.now)
            mine = self.let_go
            self.changed.wait_for(lambda: self.let_go > mine)
            self.now -= 1
        return Outcome.DONE

    def wait_again(self, job: Job, outcome: Outcome) -> None:
        raise AssertionError(job)

    def give_up(self, job: Job, reason: str) -> None:
        raise AssertionError(reason)


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    url, name, concurrency, worker_concurrency = sys.argv[1:]
    began = datetime(2026, 1, 1, tzinfo=UTC)
    worker = Worker(id=WorkerId(name), host="h", process_id=1, lanes=(Lane.CPU,), version="1", started_at=began)
    terms = QueueTerms(
        bound=99,
        concurrency=dict.fromkeys(Lane, int(concurrency)),
        worker_concurrency=int(worker_concurrency),
    )
    holding = Holding()
    runtime = DbosRuntime(url, worker, terms)
    runtime.launch(JobWorker(holding))
    say("ready")
    for _line in sys.stdin:
        with holding.changed:
            most, holding.most = holding.most, 0
            holding.let_go += 1
            holding.changed.notify_all()
        say(most)
    runtime.close(10.0)
