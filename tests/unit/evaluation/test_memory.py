"""The answers used last."""

from dspy_optimization.evaluation.memory import Memory
from dspy_optimization.evaluation.model import CallKey
from dspy_optimization.testing.scripted_model import chat_response

A, B, C = CallKey("a"), CallKey("b"), CallKey("c")


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    """Looking one up is using it."""
    memory = Memory(2)
    memory.keep(A, chat_response("a"))
    memory.keep(B, chat_response("b"))
    memory.get(A)
    memory.keep(C, chat_response("c"))

    assert (chat_response("a"), None, chat_response("c")) == (memory.get(A), memory.get(B), memory.get(C))


def test_keeping_one_again_is_using_it() -> None:
    """And the newer outcome counts."""
    memory = Memory(2)
    memory.keep(A, chat_response("a"))
    memory.keep(B, chat_response("b"))
    memory.keep(A, chat_response("newer"))
    memory.keep(C, chat_response("c"))

    assert (chat_response("newer"), None) == (memory.get(A), memory.get(B))


def test_it_holds_as_many_as_it_is_told() -> None:
    """Not one more, not one fewer."""
    memory = Memory(2)
    memory.keep(A, chat_response("a"))
    memory.keep(B, chat_response("b"))

    assert (chat_response("a"), chat_response("b")) == (memory.get(A), memory.get(B))
