"""What is refused before any route: callers from elsewhere, names the service does not answer to."""

import ipaddress
from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dspy_optimization.web.problems import problem

_SECURE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


class Doors:
    """Pure ASGI middleware: what wraps every request must not slow streams down."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_hosts: Sequence[str],
        this_machine_only: bool = False,
    ) -> None:
        """Guard an application.

        Args:
            app: what is guarded.
            allowed_hosts: names in the Host header that are answered; `*` is any.
            this_machine_only: refuse callers from elsewhere, wherever the server listens.
        """
        self._app = app
        self._allowed = frozenset(name.lower() for name in allowed_hosts)
        self._this_machine_only = this_machine_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or answer it here."""
        if scope["type"] == "websocket":
            if (self._stranger(scope) or self._wrong_host(scope)) is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 4403})
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._stranger(scope) or self._wrong_host(scope)
        if refused is not None:
            await refused(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_SECURE]}
            await send(message)

        await self._app(scope, receive, secured)

    def _stranger(self, scope: Scope) -> Response | None:
        client = scope.get("client")
        if not self._this_machine_only or client is None or _is_loopback(str(client[0])):
            return None
        return problem(
            403,
            f"wanted: a caller of this machine, for no keys are required; found: one at {client[0]}; possible: "
            "DSPY_OPT_REQUIRE_KEYS=yes and a key from dspy-opt keys create",
        )

    def _wrong_host(self, scope: Scope) -> Response | None:
        name = _host(scope)
        if "*" in self._allowed or name in self._allowed:
            return None
        return problem(
            421,
            f"wanted: a Host this service answers to; found: {name or 'none'}; possible: DSPY_OPT_ALLOWED_HOSTS names "
            "the ones there are",
        )


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _host(scope: Scope) -> str:
    """Return the Host header without its port, in lower case."""
    value: bytes = next((value for name, value in scope["headers"] if name == b"host"), b"")
    text = value.decode("latin-1").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0]
