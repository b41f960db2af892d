"""Measures the engine against its alternatives, paired in one run: `python -m benchmarks [NAME...]`.

Exit status 0 whatever the numbers are: they are measurements, not tests.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# litellm asks the network for its price table on import otherwise.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

from benchmarks.finding import Finding
from benchmarks.machine import load, machine, machine_line
from dspy_optimization.events import Json

NAMES = (
    "repeats", "throughput", "overhead", "memory", "null_pools", "crash_cost", "service_load", "pareto", "best_of_pool",
    "evolving", "real_tasks", "tasks", "sequential",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benchmarks, all of them when none is named."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; all when none is named")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--out", type=Path, help="folder for one JSON file a benchmark")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"wanted: names of benchmarks; found: {', '.join(unknown)}; possible: {', '.join(NAMES)}")
    if options.list:
        for name in NAMES:
            print(f"{name:12}{importlib.import_module(f'benchmarks.{name}').TITLE}")
        return 0
    print(machine_line(), flush=True)
    for name in options.names or NAMES:
        _run(name, options.out)
    return 0


def _run(name: str, out: Path | None) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    before, began = load(), time.monotonic()
    finding: Finding = module.measure()
    seconds, after = time.monotonic() - began, load()
    print(f"\n## {name}: {module.TITLE}\n")
    for table in finding.tables:
        print(f"{table}\n")
    for note in finding.notes:
        print(f"- {note}")
    print(f"- Took {seconds:.0f} s; load average before and after: {before:.1f}, {after:.1f}.", flush=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        document: dict[str, Json] = {
            "benchmark": name,
            "title": module.TITLE,
            "machine": machine(),
            "load_average": [before, after],
            "seconds": seconds,
            "tables": [
                {"title": table.title, "columns": list(table.columns), "rows": [list(row) for row in table.rows]}
                for table in finding.tables
            ],
            "notes": list(finding.notes),
            "data": dict(finding.data),
        }
        (out / f"{name}.json").write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
