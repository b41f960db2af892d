"""People who ask where optimizations stand: a locust file, `locust -f benchmarks/status_callers.py`.

Each asks once a second, so as many users as wanted requests a second; whoever waits longer than a second for an answer
asks less often, which the number of requests then shows. The ids are in the environment, separated by commas.
"""

import os
import random
import time
from itertools import cycle

from locust import FastHttpUser, constant_throughput, task

IDS = "STATUS_CALLERS_IDS"
ids = cycle(os.environ.get(IDS, "").split(","))


class StatusCaller(FastHttpUser):
    """Asks for the status of one optimization after another."""

    wait_time = constant_throughput(1)

    def on_start(self) -> None:
        """Begin somewhen in the first second: locust starts all users at once, and people do not ask in step."""
        time.sleep(random.random())

    @task
    def ask(self) -> None:
        """Ask once; anything but 200 counts as failed."""
        self.client.get(f"/api/v1/optimizations/{next(ids)}/status", name="status")
