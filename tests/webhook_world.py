"""A receiver on the loopback interface, and optimizations that tell events."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from uuid import uuid4

import sqlalchemy as sa

from dspy_optimization.adapters.postgres import Database, PostgresEvents
from dspy_optimization.adapters.postgres.tables import agent_version, dataset, optimization_request
from dspy_optimization.adapters.sealing import SecretBox
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Event, EventType, Json
from dspy_optimization.optimization.request import OptimizationStatus, TargetType
from dspy_optimization.tenancy import TenantId

BOX = SecretBox(bytes(range(32)))
"""Keeps secrets of webhooks."""
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the receiver answers."""

    status: int = 200
    headers: Mapping[str, str] | None = None
    content: bytes = b""
    is_http: bool = True
    drip_seconds: float | None = None
    """Send the header byte by byte with this pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One message as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Receiver:
    """Answers as told, the last reply for ever; keeps what came."""

    def __init__(self, *replies: Reply, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.received: list[Received] = []
        self.most_at_once = 0
        self._replies = deque(replies or (Reply(),))
        self._meanwhile = meanwhile
        self._at_once = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> Sequence[str]:
        return [one.headers["webhook-id"] for one in self.received]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                with receiver._lock:
                    receiver._at_once += 1
                    receiver.most_at_once = max(receiver.most_at_once, receiver._at_once)
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    receiver.received.append(Received(path=self.path, headers=headers, body=body))
                    reply = receiver._replies[0] if len(receiver._replies) == 1 else receiver._replies.popleft()
                receiver._meanwhile()
                with receiver._lock:
                    receiver._at_once -= 1
                self._answer(reply)

            def _answer(self, reply: Reply) -> None:
                try:
                    if not reply.is_http:
                        self.wfile.write(reply.content)
                    elif reply.drip_seconds is not None:
                        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000:
                            self.wfile.write(bytes([byte]))
                            if receiver._ended.wait(reply.drip_seconds):
                                return
                    else:
                        self.send_response(reply.status)
                        for name, value in (reply.headers or {}).items():
                            self.send_header(name, value)
                        self.send_header("Content-Length", str(len(reply.content)))
                        self.end_headers()
                        self.wfile.write(reply.content)
                except (ConnectionError, TimeoutError):
                    pass

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def add_optimization(database: Database, tenant: TenantId) -> OptimizationId:
    """Keep an optimization with as little around it as the tables ask for; return its id."""
    optimization_id, version = OptimizationId(uuid4()), uuid4().hex
    with database.transaction(tenant) as connection:
        connection.execute(sa.insert(agent_version).values(version=version, name="router", document={}))
        connection.execute(sa.insert(dataset).values(version=version, name="numbers", seed=0))
        connection.execute(
            sa.insert(optimization_request).values(
                optimization_id=optimization_id,
                target_type=TargetType.AGENT,
                target_id="router",
                target_version=version,
                dataset_version=version,
                objectives=[],
                algorithms=["gepa"],
                constraints={},
                document={},
                status=OptimizationStatus.RUNNING,
                created_at=NOON,
                updated_at=NOON,
            )
        )
    return optimization_id


COMPLETED: Mapping[str, Json] = {
    "improvement_percentage": 12.5,
    "algorithm_used": "gepa",
    "statistical_significance": 0.01,
    "verdict": "improved",
    "ended_because": "finished",
    "lm_calls": 300,
    "cost_usd": 0.25,
}


def event_of(
    optimization_id: OptimizationId,
    kind: EventType = EventType.OPTIMIZATION_COMPLETED,
    data: Mapping[str, Json] = COMPLETED,
    key: str | None = None,
) -> Event:
    return Event(type=kind, optimization_id=optimization_id, at=NOON, data=data, key=key)


def tell(database: Database, tenant: TenantId, event: Event) -> None:
    PostgresEvents(database, tenant).emit(event)
