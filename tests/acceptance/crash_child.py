"""The process that is killed: works on one optimization until it ends."""

import sys
from uuid import UUID

from dspy_optimization.bootstrap import open_engine
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.settings import read_settings

if __name__ == "__main__":
    with open_engine(read_settings(), track=False) as engine:
        ended = engine.optimizer.run(OptimizationId(UUID(sys.argv[1])), StopSignal())
        sys.stdout.write(f"{ended.status.value} {ended.error or ''}\n")
