"""People who ask where optimizations stand: a locust file, `locust -f benchmarks/status_callers.py`.

Each thinks for a second on average after an answer and none waits for another, so as many users as wanted requests a
second; the longer answers take, the less often they ask, which the number of requests then shows. Callers with a beat
ask in step sooner or later, and measure how a crowd at one moment is served. The ids are in the environment, separated
by commas.
"""

import os
import random
from itertools import cycle

from locust import FastHttpUser, task

IDS = "STATUS_CALLERS_IDS"
MEAN_SECONDS = 1.0
ids = cycle(os.environ.get(IDS, "").split(","))


class StatusCaller(FastHttpUser):
    """Asks for the status of one optimization after another, at moments of its own."""

    def wait_time(self) -> float:
        """Return the seconds before asking again: together, many such callers are a Poisson process."""
        return random.expovariate(1 / MEAN_SECONDS)

    @task
    def ask(self) -> None:
        """Ask once; anything but 200 counts as failed."""
        self.client.get(f"/api/v1/optimizations/{next(ids)}/status", name="status")
