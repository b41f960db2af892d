"""A model that behaves: it spells words in capitals, the better the more care it is told to take.

At temperature 0 an answer is a function of the prompt, so asking again is waste. Above 0 every call is a draw of its
own, also of the same prompt, as with a real model. Demos that are right help, instructions that ask for care help, and
proposals build on the best instruction they are shown. No proposal is ever unreadable: bare DSPy, which reads them
more strictly, is not handicapped.
"""

import hashlib
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Sequence

from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, ModelChoice, Signature
from dspy_optimization.testing.model_server import Received, Reply, answer

INSTRUCTIONS = "Write the word in capitals."
AGENT = AgentConfig(
    name="speller",
    kind=AgentKind.PREDICT,
    signature=Signature(instructions=INSTRUCTIONS, inputs=(Field(name="word"),), outputs=(Field(name="answer"),)),
    model=ModelChoice(parameters={"temperature": 0.0}),
)

_WORD = re.compile(r"\[\[ ## word ## \]\]\n(\w+)")
_ANSWER = re.compile(r"\[\[ ## answer ## \]\]\n(\w+)")
_CARE = re.compile(r"with care (\d)")
_OUTPUTS = re.compile(r"Your output fields are:\n(.*?)\nAll interactions", re.DOTALL)
_FIELD = re.compile(r"^\d+\. `(\w+)`", re.MULTILINE)
_MODULES = re.compile(r"\[\[ ## module_names ## \]\]\n([^\n]*)")
_NAME = re.compile(r"[\"']([\w.\[\]]+)[\"']")


class Speller:
    """Answers chat requests; counts what is asked twice. Thread-safe."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.calls = 0
        self.repeats = 0
        """Calls at temperature 0 that had been asked before: their answer was known."""

    def __call__(self, received: Received) -> Reply:
        """Return what the prompt earns."""
        messages = received.body["messages"]
        temperature = received.body.get("temperature") or 0.0
        whole = json.dumps([messages, temperature], sort_keys=True)
        with self._lock:
            draw = self._asked[whole]
            self._asked[whole] += 1
            self.calls += 1
            if temperature == 0.0:
                self.repeats += draw > 0
                draw = 0
        contents = [str(message["content"]) for message in messages] if isinstance(messages, list) else []
        asked = _WORD.search(contents[-1])
        if asked is not None and "`answer` (str)" in contents[0]:
            return answer(f"[[ ## answer ## ]]\n{self._spelled(asked[1], contents, draw)}\n\n[[ ## completed ## ]]")
        return answer(self._proposal(contents, draw))

    def _spelled(self, word: str, contents: Sequence[str], draw: int) -> str:
        shown = "".join(contents[:-1])
        right_demos = sum(1 for found in _ANSWER.findall(shown) if found.isupper())
        ability = 0.2 + 0.05 * _care(contents[0]) + 0.05 * min(right_demos, 4)
        # Two prompts of the same worth are right on different words, as with a real model.
        hardness = 0.7 * self._chance(word) + 0.3 * self._chance(word, shown, str(draw))
        return word.upper() if hardness < ability else word.capitalize()

    def _proposal(self, contents: Sequence[str], draw: int) -> str:
        whole = "\n".join(contents)
        dice = random.Random(f"{self._seed}/{whole}/{draw}")
        care = min(max(_care(whole) + dice.choice((-2, -1, 0, 0, 1, 1, 2, 3)), 0), 9)
        text = f"Write the word in capitals with care {care}. Note {dice.randrange(10**6):06}."
        return proposed(contents, text, text, "Words go in, the same words in capitals come out.")

    def _chance(self, *parts: str) -> float:
        digest = hashlib.blake2b("/".join((str(self._seed), *parts)).encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64


def proposed(contents: Sequence[str], text: str, advice: str, otherwise: str) -> str:
    """Return the answer to whoever asks for an instruction, in the form its prompt wants.

    Args:
        contents: of the prompt's messages.
        text: the instruction.
        advice: where advice to modules is asked for.
        otherwise: where something else is asked for, a summary say.
    """
    if "<instruction>" in contents[-1]:
        return f"<instruction>{text}</instruction>"
    if "<prompt>" in contents[-1]:
        return f"<prompt>{text}</prompt>"
    whole = "\n".join(contents)
    named = _OUTPUTS.search(contents[0])
    fields = _FIELD.findall(named[1]) if named is not None else ["proposed_instruction"]
    values: dict[str, object] = {}
    for name in fields:
        if name == "module_advice":
            listed = _MODULES.search(whole)
            modules = _NAME.findall(listed[1]) if listed is not None else ["self"]
            values[name] = dict.fromkeys(modules, advice)
        else:
            values[name] = text if "instruction" in name else otherwise
    if "Outputs will be a JSON object" in contents[0]:
        return json.dumps(values)
    parts = [
        f"[[ ## {name} ## ]]\n{value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
    ]
    return "\n\n".join([*parts, "[[ ## completed ## ]]"])


def words(count: int) -> list[str]:
    """Return so many different words; the same ones every time."""
    letters = random.Random(7)
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=7))] = None
    return list(found)


def _care(text: str) -> int:
    return max((int(found) for found in _CARE.findall(text)), default=0)
