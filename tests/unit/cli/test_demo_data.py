"""The demo's dataset is what its generator makes, so that anybody can look how it came about."""

import json
from pathlib import Path

from benchmarks.demo_data import records

import dspy_optimization

DEMO = Path(dspy_optimization.__file__).parent / "cli" / "demo"


def test_the_file_is_what_the_generator_makes() -> None:
    """Whoever doubts the data can make it anew."""
    written = [json.loads(line) for line in (DEMO / "orders.jsonl").read_text(encoding="utf-8").splitlines()]

    assert list(records()) == written
