"""Agents of a plug-in, with their bad habits: state at module level, and an end of their process."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import dspy
from dspy.clients.base_lm import GLOBAL_HISTORY

FOLDER = "ISOLATED_AGENTS_FOLDER"
"""Names the folder where agents write what they saw and read what to do."""
SEEN: list[str] = []
ENGINES: dict[int, object] = {}
"""Kept alive, so that no two of them ever have the same id."""


def _runs_in(texts: object) -> list[str]:
    """Return the beginnings of words, one an optimization, that stand in something."""
    text = str(texts)
    return [run for run in ("1st", "2nd", "3rd") if run in text]


class Watchful(dspy.Module):
    """Answers, and writes down what of this process it can see."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict(dspy.Signature("word -> answer", "Say the word in capitals."))

    def forward(self, word: str) -> Any:
        SEEN.append(word)
        model = dspy.settings.lm
        ENGINES[id(model.engine)] = model.engine
        seen = {
            "process": os.getpid(),
            "run": word[:3],
            "module": _runs_in(SEEN),
            "environment": _runs_in({name: value for name, value in os.environ.items() if name == "SEEN"}),
            "history": _runs_in([GLOBAL_HISTORY, model.history]),
            "cache": _runs_in(list(dspy.cache.memory_cache.items())),
            "model": id(model.engine),
            "settings": _runs_in(dict(dspy.settings.config)),
        }
        os.environ["SEEN"] = word
        with (Path(os.environ[FOLDER]) / f"{os.getpid()}-{threading.get_ident()}.seen").open("a") as file:
            file.write(json.dumps(seen) + "\n")
        return self.answer(word=word)


class Faulty(dspy.Module):
    """Answers until the folder says how it is to end its process."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict(dspy.Signature("word -> answer", "Say the word in capitals."))

    def forward(self, word: str) -> Any:
        answered = self.answer(word=word)
        told = Path(os.environ[FOLDER]) / "fault"
        if word.startswith("bad") and told.exists():
            what, _, number = told.read_text(encoding="utf-8").partition(" ")
            if what == "signal":
                os.kill(os.getpid(), int(number))
            elif what == "exit":
                print("no memory left for the index", flush=True)  # noqa: T201
                os._exit(int(number))
            elif what == "hang":
                time.sleep(60.0)
        return answered


def watchful() -> dspy.Module:
    """Return a program."""
    return Watchful()


def faulty() -> dspy.Module:
    """Return a program."""
    return Faulty()
