"""How isolation is kept with a request, and what one from before it means."""

import pytest

from dspy_optimization.adapters.postgres.documents import read, write
from dspy_optimization.errors import StoreError
from dspy_optimization.optimization.request import Constraints, Isolation


def test_isolation_is_kept() -> None:
    """There and back."""
    document = write(Constraints(isolation=Isolation.PROCESS))

    assert Isolation.PROCESS is read(Constraints, document).isolation


def test_a_request_from_before_runs_in_a_thread() -> None:
    """As it did then."""
    document = write(Constraints())
    noun = document["noun"]
    assert isinstance(noun, dict)
    del noun["isolation"]

    assert Constraints() == read(Constraints, document)


def test_what_nobody_knows_is_not_guessed() -> None:
    """A newer engine wrote it."""
    document = write(Constraints())
    noun = document["noun"]
    assert isinstance(noun, dict)
    noun["isolation"] = "container"
    with pytest.raises(StoreError, match="isolation"):
        read(Constraints, document)
