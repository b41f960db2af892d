"""Mutation testing of statistics, ledger and budget: `python -m benchmarks.mutation [--all] [MODULE...]`.

Each mutant is a copy of the package with one small break (`benchmarks.mutants`); the unit tests of its module run
against it, and if they stay green the tests of the whole stage. A mutant that all of them miss survives: a hole in
the tests, or a break that changes nothing, which `mutation_equivalents.json` then says with its reason.

mutmut 3.8 was tried first. It runs with this layout, but mutates no function that has a decorator: `Comparison.verdict`
and every other property would be out of its sight.
"""

import argparse
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from benchmarks.finding import Table
from benchmarks.machine import machine_line
from benchmarks.mutants import Mutant, mutants_of

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "dspy_optimization"
EQUIVALENTS = Path(__file__).with_name("mutation_equivalents.json")
LONGEST_SECONDS = 90.0
"""A mutant whose tests take longer hangs: that is noticed, so it is killed."""

PYTEST = ("-x", "-q", "--noconftest", "--hypothesis-seed=0", "-pno:cacheprovider", "-pno:xdist", "-pno:cov")

_LEDGER = ("test_calls", "test_budget", "test_group_commit", "test_group_look_up", "test_ledger", "test_memory")
# Module → its own tests, first the ones most likely to notice.
MODULES: Mapping[str, tuple[str, ...]] = {
    "statistics/intervals": ("test_intervals",),
    "statistics/multiplicity": ("test_multiplicity",),
    "statistics/paired": ("test_paired",),
    "statistics/power": ("test_power",),
    "statistics/probability": ("test_probability",),
    "statistics/verdict": ("test_verdict",),
    "evaluation/budget": ("test_budget",),
    "evaluation/calls": ("test_calls",),
    "evaluation/cashier": ("test_slots", "test_calls"),
    "evaluation/flight": ("test_calls",),
    "evaluation/gatherer": ("test_gatherer", "test_group_commit", "test_group_look_up"),
    "evaluation/group_commit": ("test_group_commit",),
    "evaluation/group_look_up": ("test_group_look_up",),
    "evaluation/ledger": ("test_ledger", "test_calls"),
    "evaluation/memory": ("test_memory", "test_calls"),
    "evaluation/need": ("test_need",),
    "evaluation/patience": ("test_patience",),
    "evaluation/receipt": ("test_group_commit", "test_calls"),
    "evaluation/tally": ("test_calls",),
}


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"  # a test turned red, or hung
    SURVIVED = "survived"  # every test stayed green
    EQUIVALENT = "equivalent"  # survived, and changes nothing that can be seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One mutant of one module."""

    module: str
    """As in `MODULES`."""
    mutant: Mutant

    @property
    def path(self) -> Path:
        """Where its source is, below the package."""
        return Path(f"{self.module}.py")

    def diff(self) -> str:
        """Return the lines it touches, old and new."""
        source = (PACKAGE / self.path).read_text(encoding="utf-8")
        raw = source.encode()
        first = raw.count(b"\n", 0, self.mutant.start)
        behind = raw.count(b"\n", self.mutant.end)
        old, new = source.split("\n"), self.mutant.applied(source).split("\n")
        lines = [f"-{line}" for line in old[first : len(old) - behind]]
        return "\n".join([*lines, *(f"+{line}" for line in new[first : len(new) - behind])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A mutant and its fate."""

    case: Case
    fate: Fate
    reason: str = ""
    """Why it is equivalent."""


def cases(modules: Sequence[str]) -> list[Case]:
    """Return every mutant of these modules."""
    return [
        Case(module=module, mutant=mutant)
        for module in modules
        for mutant in mutants_of((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    ]


def equivalents() -> dict[tuple[str, str], str]:
    """Return (module, diff) → why it changes nothing."""
    listed = json.loads(EQUIVALENTS.read_text(encoding="utf-8"))
    return {(one["module"], "\n".join(one["diff"])): one["reason"] for one in listed}


class Workshop:
    """One copy of the package to break, and a process that runs tests on it."""

    def __init__(self, folder: Path) -> None:
        self._copy = folder / "dspy_optimization"
        shutil.copytree(PACKAGE, self._copy, ignore=shutil.ignore_patterns("__pycache__"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.forking", str(LONGEST_SECONDS)],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(folder),
                "PYTHONDONTWRITEBYTECODE": "1",  # a stale .pyc of a mutant would stand in for the next one
                "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def is_killed(self, case: Case) -> bool:
        """Say whether any test notices."""
        target = self._copy / case.path
        source = target.read_text(encoding="utf-8")
        target.write_text(case.mutant.applied(source), encoding="utf-8")
        try:
            return any(self.is_red(tests) for tests in _tests(case.module))
        finally:
            target.write_text(source, encoding="utf-8")

    def is_red(self, tests: Sequence[str]) -> bool:
        """Say whether a test fails, breaks or hangs."""
        if not tests:
            return False
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("wanted: a process with pipes; found: none")
        self._process.stdin.write(f"{json.dumps([*PYTEST, *tests])}\n")
        self._process.stdin.flush()
        status: int | None = json.loads(self._process.stdout.readline())
        return status != 0


def _tests(module: str) -> Iterator[list[str]]:
    """Yield the module's own tests, then the others of its stage."""
    stage = module.partition("/")[0]
    folder = Path("tests") / "unit" / stage
    own = [str(folder / f"{name}.py") for name in MODULES[module]]
    yield own
    stems = _LEDGER if stage == "evaluation" else [path.stem for path in sorted((ROOT / folder).glob("test_*.py"))]
    yield [path for path in (str(folder / f"{stem}.py") for stem in stems) if path not in own]


def run(chosen: Sequence[Case], workers: int) -> list[Ended]:
    """Return the fate of every case; prints survivors as they are found."""
    known = equivalents()
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in chosen:
        waiting.put(case)
    ended: list[Ended] = []
    failures: list[BaseException] = []
    lock = threading.Lock()

    def work(shop: Workshop) -> None:
        try:
            while not failures:
                case = waiting.get_nowait()
                reason = known.get((case.module, case.diff()))
                if reason is not None:
                    one = Ended(case=case, fate=Fate.EQUIVALENT, reason=reason)
                else:
                    killed = shop.is_killed(case)
                    one = Ended(case=case, fate=Fate.KILLED if killed else Fate.SURVIVED)
                with lock:
                    ended.append(one)
                    if one.fate is Fate.SURVIVED:
                        where = f"{case.module}.py:{case.mutant.line} ({case.mutant.kind})"
                        print(f"survived: {where}\n{case.diff()}\n", flush=True)
                    if len(ended) % 25 == 0:
                        print(f"... {len(ended)} of {len(chosen)}", flush=True)
        except queue.Empty:
            return
        except BaseException as error:
            failures.append(error)
            raise

    with tempfile.TemporaryDirectory(prefix="dspy-opt-mutants-") as folder:
        shops = [Workshop(Path(folder) / str(number)) for number in range(workers)]
        try:
            _check_green(shops[0], sorted({case.module for case in chosen}))
        except SystemExit:
            for shop in shops:
                shop.close()
            raise
        threads = [threading.Thread(target=work, args=(shop,)) for shop in shops]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for shop in shops:
            shop.close()
    if failures:
        raise failures[0]
    return ended


def _check_green(shop: Workshop, modules: Sequence[str]) -> None:
    """Refuse to judge by tests that are red, or too slow, without any mutant."""
    files = sorted({test for module in modules for group in _tests(module) for test in group})
    red = [test for test in files if shop.is_red([test])]
    if red:
        raise SystemExit(
            f"wanted: green tests before anything is broken; found: red, or longer than {LONGEST_SECONDS:g} s: "
            f"{', '.join(red)}; possible: mend them, or wait until the machine has less to do"
        )


def _table(ended: Sequence[Ended], totals: Mapping[str, int]) -> Table:
    rows = []
    for module in [*MODULES, "all"]:
        fates = Counter(one.fate for one in ended if module in {one.case.module, "all"})
        if not fates:
            continue
        counted = fates[Fate.KILLED] + fates[Fate.SURVIVED]
        rows.append(
            (
                module,
                str(sum(totals.values()) if module == "all" else totals[module]),
                str(fates.total()),
                str(fates[Fate.KILLED]),
                str(fates[Fate.SURVIVED]),
                str(fates[Fate.EQUIVALENT]),
                f"{fates[Fate.KILLED] / counted:.1%}" if counted else "-",
            )
        )
    columns = ("module", "mutants", "tried", "killed", "survived", "equivalent", "score")
    return Table(title="Mutants killed, of those that change anything", columns=columns, rows=tuple(rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Try mutants; exit status 1 when the score is below `--at-least`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=main.__doc__)
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help="such as statistics/verdict; all when none is named"
    )
    parser.add_argument("--all", action="store_true", help="every mutant instead of a sample")
    parser.add_argument("--sample", type=int, default=300, help="how many mutants (300)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--workers", type=int, default=2, help="tests run at once (2)")
    parser.add_argument("--at-least", type=float, default=0.95, help="share that has to be killed (0.95)")
    parser.add_argument("--out", type=Path, help="JSON file with every survivor")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.modules) - set(MODULES))
    if unknown:
        parser.error(f"wanted: modules; found: {', '.join(unknown)}; possible: {', '.join(MODULES)}")
    everything = cases(options.modules or list(MODULES))
    chosen = everything
    if not options.all and len(everything) > options.sample:
        chosen = random.Random(options.seed).sample(everything, options.sample)
    print(machine_line(), f"\n{len(chosen)} of {len(everything)} mutants", flush=True)
    began = time.monotonic()
    ended = run(chosen, options.workers)
    totals = Counter(case.module for case in everything)
    print(f"\n{_table(ended, totals)}\n\nTook {time.monotonic() - began:.0f} s.")
    survived = [one for one in ended if one.fate is Fate.SURVIVED]
    if options.out is not None:
        listed = [
            {"module": one.case.module, "kind": one.case.mutant.kind, "line": one.case.mutant.line,
             "diff": one.case.diff().splitlines()}
            for one in survived
        ]  # fmt: skip
        options.out.write_text(json.dumps(listed, indent=1, ensure_ascii=False), encoding="utf-8")
    killed = sum(one.fate is Fate.KILLED for one in ended)
    return 0 if killed >= options.at_least * (killed + len(survived)) else 1


if __name__ == "__main__":
    sys.exit(main())
