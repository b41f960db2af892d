"""What Prometheus scrapes: read anew at every scrape, so that no process has to remember anything."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from dspy_optimization.adapters.gpu import gpus
from dspy_optimization.adapters.postgres.gpu_use_store import gpu_use_of_all
from dspy_optimization.compute.devices import DeviceKind
from dspy_optimization.errors import InfrastructureError
from dspy_optimization.serving import Serving


class EngineCollector:
    """Queue, workers and GPUs, of all tenants together."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def collect(self) -> Iterator[Metric]:
        """Yield every family; without the database the ones that need it are missing and `up` is 0."""
        up = GaugeMetricFamily("dspy_opt_database_up", "Whether the database answers.")
        try:
            families = list(self._of_database())
        except InfrastructureError:
            up.add_metric([], 0.0)
            yield up
        else:
            up.add_metric([], 1.0)
            yield up
            yield from families
        own = GaugeMetricFamily("dspy_opt_jobs_running", "Optimizations this process works on.")
        own.add_metric([], float(self._serving.jobs.running))
        yield own
        yield from self._of_gpus()

    def _of_database(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("dspy_opt_queue_jobs", "Optimizations by lane and state.", labels=["lane", "state"])
        limit = GaugeMetricFamily("dspy_opt_queue_concurrency", "How many may run at once.", labels=["lane"])
        each = GaugeMetricFamily(
            "dspy_opt_queue_worker_concurrency",
            "How many may run at once in each worker; lanes without: any number.",
            labels=["lane"],
        )
        for lane, load in self._serving.queue.load().items():
            jobs.add_metric([lane.value, "waiting"], float(load.waiting))
            jobs.add_metric([lane.value, "running"], float(load.running))
            limit.add_metric([lane.value], float(load.concurrency))
            if load.worker_concurrency is not None:
                each.add_metric([lane.value], float(load.worker_concurrency))
        yield from (jobs, limit, each)
        shares = GaugeMetricFamily(
            "dspy_opt_partition_jobs", "Optimizations by bounded algorithm and state.", labels=["partition", "state"]
        )
        most = GaugeMetricFamily("dspy_opt_partition_concurrency", "How many may run at once.", labels=["partition"])
        for partition, share in self._serving.queue.partitions().items():
            shares.add_metric([partition, "waiting"], float(share.waiting))
            shares.add_metric([partition, "running"], float(share.running))
            most.add_metric([partition], float(share.concurrency))
        yield shares
        yield most
        bound = GaugeMetricFamily("dspy_opt_queue_bound", "How many may wait.")
        bound.add_metric([], float(self._serving.settings.service.queue_size))
        yield bound
        workers = GaugeMetricFamily("dspy_opt_workers", "Workers by whether their lease holds.", labels=["alive"])
        leases = self._serving.leases.leases()
        for alive in (True, False):
            workers.add_metric([str(alive).lower()], float(sum(lease.is_alive is alive for lease in leases)))
        yield workers
        held = CounterMetricFamily("dspy_opt_gpu_seconds", "How long optimizations held a device.", labels=["device"])
        ran_out = CounterMetricFamily(
            "dspy_opt_out_of_memory", "How often a device had not enough memory for a batch.", labels=["device"]
        )
        for kind, use in gpu_use_of_all(self._serving.foundation.database).items():
            if kind is not DeviceKind.CPU:
                held.add_metric([kind.value], use.seconds)
            ran_out.add_metric([kind.value], float(use.out_of_memory))
        yield held
        yield ran_out

    def _of_gpus(self) -> Iterator[Metric]:
        used = GaugeMetricFamily("dspy_opt_gpu_memory_used_bytes", "Memory in use.", labels=["gpu"])
        total = GaugeMetricFamily("dspy_opt_gpu_memory_total_bytes", "Memory there is.", labels=["gpu"])
        busy = GaugeMetricFamily("dspy_opt_gpu_utilization_ratio", "Share of time at work.", labels=["gpu"])
        for gpu in gpus().devices:
            label = [str(gpu.index)]
            used.add_metric(label, float(gpu.memory_used_bytes))
            total.add_metric(label, float(gpu.memory_total_bytes))
            if gpu.utilization is not None:
                busy.add_metric(label, gpu.utilization)
        yield from (used, total, busy)


def exposition(serving: Serving) -> bytes:
    """Return the metrics as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(serving))
    return generate_latest(registry)
