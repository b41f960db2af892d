"""Who looks at running experiments: a thread of every process that takes traffic, so traffic is never unwatched."""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from dspy_optimization.errors import StoreError
from dspy_optimization.experiments.conducting import Conductor
from dspy_optimization.experiments.experiment import Experiment
from dspy_optimization.tenancy import TenantId

logger = logging.getLogger(__name__)

POLL_SECONDS = 5.0
"""Between two rounds: by so much a rollback may be late, besides window and grace, where these are short."""
_LOOKS_A_WINDOW = 300.0
_LONGEST_PAUSE = timedelta(minutes=5)


class Looker:
    """Looks at every running experiment of every tenant, again and again; several processes may do so at once."""

    def __init__(
        self,
        tenants: Callable[[], Sequence[TenantId]],
        conductor: Callable[[TenantId], Conductor],
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Take who there is to look for.

        Args:
            tenants: returns those that have running experiments; others do no harm.
            conductor: returns the one of a tenant.
            poll_seconds: between two rounds.
        """
        self._tenants = tenants
        self._conductor = conductor
        self._poll_seconds = poll_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="experiments", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """End after the look under way, or after so long: what it has not written others look at again."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def step(self) -> int:
        """Look at each that is due; return how many there were. `StoreError` when the database is away."""
        looked = 0
        for tenant in self._tenants():
            conductor = self._conductor(tenant)
            for experiment in conductor.kept.experiments.running():
                if self._ended.is_set():
                    return looked
                if self._is_due(experiment, conductor.now()):
                    self._look(conductor, experiment)
                    looked += 1
        return looked

    def _is_due(self, experiment: Experiment, now: datetime) -> bool:
        """Say whether nobody has looked for a while.

        A look reads all units that are still in their window: of a window of hours it is spared where it could tell
        of a few seconds more.
        """
        window = experiment.plan.window
        pause = min((window.length + window.grace) / _LOOKS_A_WINDOW, _LONGEST_PAUSE)
        return experiment.decision is None or now - experiment.decision.decided_at >= pause

    def _look(self, conductor: Conductor, experiment: Experiment) -> None:
        facts = {"experiment": str(experiment.plan.experiment_id), "tenant": str(conductor.tenant)}
        try:
            after = conductor.look(experiment.plan.experiment_id)
        except StoreError:
            raise
        except Exception:
            # A defect that one experiment brings to light must not leave the others unwatched.
            logger.exception("Experiment not looked at", extra={"action": "experiment_look_failed", **facts})
            return
        if after.has_ended and after.decision is not None:
            told = {"status": after.status.value, "state": after.decision.state.value}
            logger.info("Experiment ended", extra={"action": "experiment_ended", **facts, **told})

    def _watch(self) -> None:
        while not self._ended.is_set():
            try:
                self.step()
            except StoreError as error:
                logger.warning("Experiments wait", extra={"action": "experiments_wait", "error": str(error)})
            self._ended.wait(self._poll_seconds)
