"""Allow-lists: which code and which hosts may be named."""

import sys
from types import ModuleType
from urllib.parse import urlsplit

import pytest

from dspy_optimization.agents.allow_list import AllowList, CodeUse, ForeignCode
from dspy_optimization.errors import CancelRequested, InvalidRequestError, ModelError


def _sample(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sample_module")
    exec("def own(): return 1\ndef _private(): return 2\nvalue = 3\nfrom os import system", module.__dict__)
    monkeypatch.setitem(sys.modules, "sample_module", module)


def test_a_star_allows_what_the_module_defines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own public functions; an imported one only by its exact name."""
    _sample(monkeypatch)
    star = AllowList(tools=frozenset({"sample_module:*"}))
    exact = AllowList(tools=frozenset({"sample_module:system", "sample_module:_private"}))

    assert star.load(CodeUse.TOOL, "sample_module:own", "x")() == 1
    assert exact.load(CodeUse.TOOL, "sample_module:_private", "x")() == 2
    assert exact.load(CodeUse.TOOL, "sample_module:system", "x").__name__ == "system"
    with pytest.raises(InvalidRequestError, match=r"found system, which it imports from posix"):
        star.load(CodeUse.TOOL, "sample_module:system", "x")
    with pytest.raises(InvalidRequestError, match="is not on the allow-list"):
        star.load(CodeUse.TOOL, "sample_module:_private", "x")
    with pytest.raises(InvalidRequestError, match=r"sample_module has no function value; possible: own, system"):
        star.load(CodeUse.TOOL, "sample_module:value", "x")


def test_lists_are_for_their_use() -> None:
    """What may be a tool may not build programs."""
    lists = [frozenset({f"{name}:{name}"}) for name in ("a", "c", "e", "g")]
    allowed = AllowList(tools=frozenset({"a:b"}), entrypoints=lists[1], metrics=lists[2], algorithms=lists[3])

    assert [frozenset({"a:b"}), *lists[1:]] == [allowed.of(use) for use in CodeUse]
    with pytest.raises(InvalidRequestError, match=r"a:b is not on the allow-list; possible: c:c .*entrypoints"):
        allowed.check(CodeUse.ENTRYPOINT, "a:b", "x")


def test_a_module_that_cannot_be_imported() -> None:
    """The reason is in the message."""
    allowed = AllowList(metrics=frozenset({"no_such_module_here:f"}))
    with pytest.raises(InvalidRequestError, match="No module named 'no_such_module_here'; possible: install it"):
        allowed.load(CodeUse.METRIC, "no_such_module_here:f", "x")


@pytest.mark.parametrize("name", ["os", "os.system", "os:system.x", "os:", ":f", "a b:c", "é:f", "a:*", "../a:b", ""])
def test_what_is_no_name_of_code(name: str) -> None:
    """Nothing but package.module:function is looked up."""
    with pytest.raises(InvalidRequestError, match=r"possible: package\.module:function"):
        AllowList(tools=frozenset({"a:*"})).check(CodeUse.TOOL, name, "x")


@pytest.mark.parametrize(
    ("entries", "url", "allowed"),
    [
        ({"localhost"}, "http://localhost:9/x", True),
        ({"localhost:9"}, "http://localhost:9/x", True),
        ({"localhost:9"}, "http://localhost:8/x", False),
        ({"a.com:443"}, "https://a.com/x", True),
        ({"a.com:80"}, "http://a.com/x", True),
        ({"*.a.com"}, "https://b.a.com/", True),
        ({"*.a.com"}, "https://a.com/", False),
        ({"*.a.com"}, "https://evila.com/", False),
        ({"a.com"}, "https://A.com./", True),
        ({"*"}, "https://anything/", True),
        (set(), "https://a.com/", False),
    ],
)
def test_hosts(entries: set[str], url: str, allowed: bool) -> None:
    """A host by name, by name and port, by domain, or any."""
    check = AllowList(http_hosts=frozenset(entries)).check_host
    if allowed:
        check(urlsplit(url), "x")
        return
    with pytest.raises(InvalidRequestError, match="is not on the allow-list"):
        check(urlsplit(url), "x")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (KeyError("a"), InvalidRequestError),
        (SystemExit(1), InvalidRequestError),
        (ModelError("429"), ModelError),
        (CancelRequested(), CancelRequested),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_foreign_code(raised: BaseException, expected: type[BaseException]) -> None:
    """Bugs of others become our error; stops and infrastructure failures pass."""
    with pytest.raises(expected) as caught, ForeignCode("the metric x failed", "mend it"):
        raise raised

    assert caught.type is not InvalidRequestError or caught.value.__cause__ is raised


def test_foreign_code_that_works() -> None:
    """Nothing happens."""
    with ForeignCode("what", "possible"):
        found = 1

    assert found == 1
