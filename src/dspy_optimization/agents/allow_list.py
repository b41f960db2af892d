"""Which installed code and which hosts a configuration may name. Everything else is refused."""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from urllib.parse import SplitResult

from dspy_optimization.agents.untrusted import closest, listed, shown
from dspy_optimization.errors import EngineError, InvalidRequestError

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class CodeUse(StrEnum):
    """What named code is for; the value is the list of `AllowList` that it must stand on."""

    TOOL = "tools"  # an agent calls it
    ENTRYPOINT = "entrypoints"  # it builds a program
    METRIC = "metrics"  # it scores an answer
    ALGORITHM = "algorithms"  # it searches for better candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowList:
    """What the owner of the engine allows.

    Code is named exactly, `package.module:function`, or `package.module:*` for every public function that the
    module itself defines. Hosts are `host`, `host:port`, `*.domain`, or `*` for any.
    """

    tools: frozenset[str] = frozenset()
    entrypoints: frozenset[str] = frozenset()
    metrics: frozenset[str] = frozenset()
    http_hosts: frozenset[str] = frozenset()
    algorithms: frozenset[str] = frozenset()

    def of(self, use: CodeUse) -> frozenset[str]:
        """Return the entries for one use."""
        match use:
            case CodeUse.TOOL:
                return self.tools
            case CodeUse.ENTRYPOINT:
                return self.entrypoints
            case CodeUse.METRIC:
                return self.metrics
            case CodeUse.ALGORITHM:
                return self.algorithms

    def check(self, use: CodeUse, name: str, where: str) -> str:
        """Return the name when it is allowed.

        Raises:
            InvalidRequestError: it is no `module:function`, or it is not on the list.
        """
        if _NAME.fullmatch(name) is None:
            raise InvalidRequestError(
                f"{where}: the name of installed code is wanted, found {shown(name)}; possible: package.module:function"
            )
        module, function = name.split(":")
        allowed = self.of(use)
        if name in allowed or (f"{module}:*" in allowed and not function.startswith("_")):
            return name
        raise InvalidRequestError(
            f"{where}: {name} is not on the allow-list{closest(name, allowed)}; possible: {listed(allowed)} "
            f"(the owner of the engine adds names under {use.value})"
        )

    def check_host(self, url: SplitResult, where: str) -> None:
        """Refuse a host that is not on the list.

        Raises:
            InvalidRequestError: names the host and the allowed ones.
        """
        host = (url.hostname or "").rstrip(".")
        port = url.port if url.port is not None else {"http": 80, "https": 443}[url.scheme]
        if {"*", host, f"{host}:{port}"} & self.http_hosts:
            return
        if any(entry.startswith("*.") and host.endswith(entry[1:]) for entry in self.http_hosts):
            return
        raise InvalidRequestError(
            f"{where}: the host {host}:{port} is not on the allow-list; possible: {listed(self.http_hosts)} "
            "(the owner of the engine adds hosts under http_hosts)"
        )

    def load(self, use: CodeUse, name: str, where: str) -> Callable[..., object]:
        """Return the installed function behind an allowed name. Imports its module.

        Raises:
            InvalidRequestError: the name is not allowed, its module cannot be imported, or it has no such function.
        """
        self.check(use, name, where)
        module_name, function_name = name.split(":")
        with ForeignCode(f"{where}: {module_name} cannot be imported", "install it, or mend its import"):
            module = importlib.import_module(module_name)
        found = getattr(module, function_name, None)
        if not callable(found):
            public = [one for one, value in vars(module).items() if callable(value) and not one.startswith("_")]
            raise InvalidRequestError(
                f"{where}: {module_name} has no function {function_name}{closest(function_name, public)}; possible: "
                f"{listed(public)}"
            )
        if name not in self.of(use) and getattr(found, "__module__", None) != module_name:
            raise InvalidRequestError(
                f"{where}: {module_name}:* allows what {module_name} itself defines, found {function_name}, which it "
                f"imports from {getattr(found, '__module__', 'elsewhere')}; possible: put {name} on the list by name"
            )
        function: Callable[..., object] = found
        return function


class ForeignCode:
    """A context in which code of others runs: what goes wrong there becomes our kind of error.

    Errors of this engine (a model that failed inside a metric) and stops pass unchanged.
    """

    def __init__(self, what: str, possible: str) -> None:
        """Say how the error reads.

        Args:
            what: what was tried, e.g. "the metric x failed on example 7".
            possible: what the reader can do.
        """
        self._what = what
        self._possible = possible

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, EngineError) or not isinstance(error, Exception | SystemExit):
            return
        raise InvalidRequestError(
            f"{self._what}, found {type(error).__name__}: {error}; possible: {self._possible}"
        ) from error
