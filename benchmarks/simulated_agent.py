"""An agent whose true quality is known: a model that is right with a probability, and a best prompt that is known too.

An instruction is worth the rules in it: some help, some hurt, some only help together. A demo helps or hurts by what it
is, and the second less than the first. Examples differ in how hard they are and in how much ability tells on them. At
temperature 0 an answer is a function of the prompt, right with the probability that prompt and example give.

Whoever asks for an instruction gets the rules his prompt shows, one dropped perhaps, and one or two more: a good one
more often than a bad one. So every algorithm has the same writer, and what it gets depends on what it shows.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from benchmarks.speller import proposed
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, ModelChoice, Signature
from dspy_optimization.agents.example import Example, ExampleId
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Price
from dspy_optimization.testing.scripted_model import chat_response

INSTRUCTIONS = "Answer the question."
AGENT = AgentConfig(
    name="simulated",
    kind=AgentKind.PREDICT,
    signature=Signature(instructions=INSTRUCTIONS, inputs=(Field(name="question"),), outputs=(Field(name="answer"),)),
    model=ModelChoice(parameters={"temperature": 0.0}),
)
_RULES = 16
_VERBS = ("check", "restate", "count", "quote", "compare", "verify", "list", "sort")
_THINGS = ("units", "signs", "names", "edges", "sources", "steps", "cases", "dates")
_TRAIN, _VAL, _HELD_OUT = 40, 60, 400
_GOOD_SHARE = 0.6
"""How often the writer adds a rule that helps."""
_RULE = re.compile(r"Rule (\d+):")
_QUESTION = re.compile(r"\[\[ ## question ## \]\]\nQ(\d+)")
_ANSWERED = re.compile(r"\[\[ ## answer ## \]\]\nA(\d+)")


@dataclass(frozen=True, kw_only=True)
class World:
    """One agent with its examples; same seed, same world."""

    seed: int
    rules: tuple[float, ...] = field(init=False)
    pairs: Mapping[tuple[int, int], float] = field(init=False)
    demos: tuple[float, ...] = field(init=False)
    """Of every train example."""
    slopes: tuple[float, ...] = field(init=False)
    hardness: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        dice = np.random.default_rng(self.seed)
        count = _TRAIN + _VAL + _HELD_OUT
        object.__setattr__(self, "rules", tuple(dice.normal(0.15, 0.55, _RULES)))
        all_pairs = list(itertools.combinations(range(_RULES), 2))
        chosen = dice.choice(len(all_pairs), 12, replace=False)
        object.__setattr__(self, "pairs", {all_pairs[one]: float(dice.normal(0.0, 0.4)) for one in chosen})
        object.__setattr__(self, "demos", tuple(dice.normal(0.1, 0.35, _TRAIN)))
        object.__setattr__(self, "slopes", tuple(np.exp(dice.normal(0.0, 0.3, count))))
        object.__setattr__(self, "hardness", tuple(dice.normal(0.9, 1.0, count)))

    @property
    def train(self) -> tuple[Example, ...]:
        """What algorithms learn from."""
        return tuple(_example(number) for number in range(_TRAIN))

    @property
    def val(self) -> tuple[Example, ...]:
        """What candidates are compared on."""
        return tuple(_example(number) for number in range(_TRAIN, _TRAIN + _VAL))

    def ability(self, rules: Sequence[int], demos: Sequence[int]) -> float:
        """Return what a prompt is worth, in logits."""
        held = sorted(set(rules))
        of_rules = sum(self.rules[one] for one in held)
        of_pairs = sum(worth for pair, worth in self.pairs.items() if set(pair) <= set(held))
        shown = sum(self.demos[one] / np.sqrt(1.0 + place) for place, one in enumerate(demos))
        # A long list of rules is not followed as a short one is.
        return float(of_rules + of_pairs + shown - 0.02 * len(held) ** 2)

    def quality(self, candidate: Candidate) -> float:
        """Return the true share of right answers on examples that nobody measures on."""
        value = next(iter(candidate.components.values()))
        demos = [int(str(demo["question"])[1:]) for demo in value.demos if str(demo.get("question", ""))[1:].isdigit()]
        right = [str(demo.get("answer")) == f"A{number}" for demo, number in zip(value.demos, demos, strict=False)]
        known = [number for number, ok in zip(demos, right, strict=False) if ok and number < _TRAIN]
        return self._mean(self.ability(_rules_in(value.instructions), known))

    @cached_property
    def best(self) -> float:
        """The quality of the best prompt there is: by steps from several beginnings, of rules and four demos."""
        dice = random.Random(self.seed)
        found = 0.0
        for _ in range(8):
            held = {rule for rule in range(_RULES) if dice.random() < 0.5}
            improved = True
            while improved:
                improved = False
                for rule in range(_RULES):
                    if self.ability(sorted(held ^ {rule}), ()) > self.ability(sorted(held), ()):
                        held ^= {rule}
                        improved = True
            shown = sorted(range(_TRAIN), key=lambda one: -self.demos[one])[:4]
            found = max(found, self._mean(self.ability(sorted(held), shown)))
        return found

    def chance(self, number: int, rules: Sequence[int], demos: Sequence[int]) -> float:
        """Return how likely a prompt is right on one example."""
        return float(_chance(self.slopes[number] * (self.ability(rules, demos) - self.hardness[number])))

    def _mean(self, ability: float) -> float:
        slopes, hardness = np.array(self.slopes[-_HELD_OUT:]), np.array(self.hardness[-_HELD_OUT:])
        return float(_chance(slopes * (ability - hardness)).mean())


class SimulatedModel:
    """The `LanguageModel` of a world; thread-safe, and never waits."""

    identity = "simulated"
    price: Price | None = None

    def __init__(self, world: World) -> None:
        self._world = world

    def complete(self, request: ModelRequest) -> ModelResponse:
        """Return what the prompt earns."""
        messages = request.body["messages"]
        contents = (
            [str(one["content"]) for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
        )
        draw = f"{request.sample}/{request.body.get('temperature')}"
        asked = _QUESTION.search(contents[-1])
        if asked is not None and "`answer` (str)" in contents[0]:
            said = self._answer(int(asked[1]), contents, draw)
            return chat_response(f"[[ ## answer ## ]]\n{said}\n\n[[ ## completed ## ]]")
        return chat_response(self._proposal(contents, draw))

    def close(self) -> None:
        """Hold nothing."""

    def _answer(self, number: int, contents: Sequence[str], draw: str) -> str:
        shown = "\n".join(contents[1:-1])
        asked = [int(one) for one in _QUESTION.findall(shown)]
        answered = [int(one) for one in _ANSWERED.findall(shown)]
        demos = [one for one, said in zip(asked, answered, strict=False) if one == said and one < _TRAIN]
        chance = self._world.chance(number, _rules_in(contents[0]), demos)
        return f"A{number}" if _luck(self._world.seed, *contents, draw) < chance else "A"

    def _proposal(self, contents: Sequence[str], draw: str) -> str:
        whole = "\n".join(contents)
        dice = random.Random(f"{self._world.seed}/{whole}/{draw}")
        held = set(_rules_in(whole))
        if held and dice.random() < 0.35:
            held.discard(dice.choice(sorted(held)))
        added = [self._rule(held, dice) for _ in range(dice.choice((1, 1, 2)))]
        text = " ".join([INSTRUCTIONS, *(rule_text(rule) for rule in sorted(held | set(added)))])
        return proposed(contents, text, rule_text(added[0]), "Questions are answered.")

    def _rule(self, held: set[int], dice: random.Random) -> int:
        good = [rule for rule in range(_RULES) if rule not in held and self._world.rules[rule] > 0.0]
        other = [rule for rule in range(_RULES) if rule not in held]
        return dice.choice(good if good and dice.random() < _GOOD_SHARE else other or list(range(_RULES)))


def rule_text(rule: int) -> str:
    """Return the words of a rule."""
    return f"Rule {rule}: always {_VERBS[rule % 8]} the {_THINGS[(rule * 3 + rule // 8) % 8]} first."


def _rules_in(text: str) -> list[int]:
    return sorted({int(one) for one in _RULE.findall(text) if int(one) < _RULES})


def _example(number: int) -> Example:
    return Example(id=ExampleId(f"{number:04}"), inputs={"question": f"Q{number}"}, expected={"answer": f"A{number}"})


def _chance(logits: np.ndarray | float) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.asarray(logits)))


def _luck(seed: int, *parts: str) -> float:
    digest = hashlib.blake2b("/".join((str(seed), *parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
