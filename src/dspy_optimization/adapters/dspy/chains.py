"""Agents that think several times and compare."""

from typing import Any

import dspy


class MultiChain(dspy.Module):
    """Draws m chains of thought, then asks once which answer holistically holds (`dspy.MultiChainComparison`)."""

    def __init__(self, signature: Any, *, m: int = 3, temperature: float = 0.7) -> None:
        super().__init__()
        self.m = m
        self.temperature = temperature
        self.chain = dspy.ChainOfThought(signature)
        self.compare = dspy.MultiChainComparison(signature, M=m, temperature=temperature)

    def forward(self, **inputs: Any) -> Any:
        """Return the comparison's answer; a chain nobody can read fails the example."""
        drawn = self.chain(**inputs, config={"n": self.m, "temperature": self.temperature}).completions
        chains = [{name: values[index] for name, values in drawn.items()} for index in range(self.m)]
        return self.compare(completions=chains, **inputs)
