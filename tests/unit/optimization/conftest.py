"""An engine for the tests of this stage."""

from collections.abc import Callable

import pytest
from optimization_house import House, build_house, speller

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.evaluation.model import LanguageModel
from dspy_optimization.testing.scripted_model import ScriptedModel


@pytest.fixture
def house_of(database: Database) -> Callable[[LanguageModel], House]:
    """Build an engine around a model."""
    return lambda model: build_house(database, model)


@pytest.fixture
def good_house(house_of: Callable[[LanguageModel], House]) -> House:
    """An engine whose model spells 40 % right, and 80 % when it is told to be LOUD."""
    return house_of(ScriptedModel(speller(lambda text: 0.8 if "LOUD" in text else 0.4)))
