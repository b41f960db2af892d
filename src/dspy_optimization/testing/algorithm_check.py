"""The check of one algorithm in a process of its own: the child of `adapters.algorithm_checks`.

    python -m dspy_optimization.testing.algorithm_check

    to its standard input                    from its standard output, a JSON object a line
    {"entrypoint": …, "paths": …, …}         {"rules": [name, …]}, {"name": …}, {"begins": rule}, {"finding": …}, …,
                                             {"digest": …}, {"done": true}

What the algorithm prints goes to standard error.
"""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import IO

from dspy_optimization.events import Json

LOADS = "loads"


def main() -> None:
    """Check and tell."""
    order = json.loads(sys.stdin.readline())
    told = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    sys.path[:] = [str(one) for one in order["paths"]]
    _check(order, told)
    _tell(told, {"done": True})
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(0)  # whatever threads an algorithm left behind


def _check(order: Mapping[str, Json], told: IO[str]) -> None:
    from dspy_optimization.agents.allow_list import AllowList
    from dspy_optimization.algorithms.custom import load_algorithm
    from dspy_optimization.algorithms.rules import Outcome, RuleFinding
    from dspy_optimization.errors import InvalidRequestError
    from dspy_optimization.testing.algorithm_bench import RuleBroken
    from dspy_optimization.testing.algorithm_contract import (
        RULES,
        check_algorithm,
        search_digest,
    )
    from dspy_optimization.testing.algorithm_world import build_world

    entrypoint = str(order["entrypoint"])
    _tell(told, {"rules": [LOADS, *(rule.name for rule in RULES)]})
    build_world()  # imports what searches need, before memory is bounded
    _bound_memory(int(str(order["memory_bytes"])))
    _tell(told, {"begins": LOADS})
    try:
        algorithm = load_algorithm(AllowList(algorithms=frozenset({entrypoint})), entrypoint, "entrypoint")
    except InvalidRequestError as error:
        broken = RuleFinding(
            rule=LOADS,
            outcome=Outcome.BROKEN,
            wanted="a class that can be made without arguments and is an algorithm",
            found=str(error),
            possible="mend its module",
        )
        _tell(told, {"finding": broken.to_json()})
        return
    _tell(told, {"finding": RuleFinding(rule=LOADS, outcome=Outcome.KEPT).to_json(), "name": algorithm.name})
    limit = float(str(order["limit_seconds"]))
    if order["digest_only"]:
        try:
            _tell(told, {"digest": search_digest(algorithm, limit)})
        except RuleBroken as broken_rule:
            _tell(told, {"digest": str(broken_rule)})
        return
    check_algorithm(
        algorithm,
        limit_seconds=limit,
        begins=lambda rule: _tell(told, {"begins": rule}),
        ended=lambda finding: _tell(told, {"finding": finding.to_json()}),
        digest=lambda digest: _tell(told, {"digest": digest}),
    )


def _bound_memory(more_bytes: int) -> None:
    """Let this process take so much more than it has; where the system knows no such bound, nothing happens."""
    try:
        import resource
    except ImportError:
        return  # Windows
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
            pages = int(file.read().split()[0])
        most = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _tell(told: IO[str], message: Mapping[str, Json]) -> None:
    told.write(json.dumps(message) + "\n")
    told.flush()


if __name__ == "__main__":
    main()
