"""Requests to the service: where it is, who asks, what is sent again, and what becomes of refusals."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx

from dspy_optimization.errors import InfrastructureError, InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.sdk.problems import PASSING, Refusal, unreachable
from dspy_optimization.sdk.reading import Answer, read
from dspy_optimization.sdk.retries import Retries, Surroundings, retry_after_seconds

API = "/api/v1"
MAX_DOWNLOAD_BYTES = 1 << 30
Got = TypeVar("Got")
Parameters = Mapping[str, str | int | float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the service is."""

    url: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise InvalidRequestError(
                f"base_url: wanted: http:// or https:// and a host; found: {self.url!r}; possible: http://127.0.0.1:8004"
            )

    @property
    def base(self) -> str:
        """The URL without a slash at its end."""
        return self.url.rstrip("/")

    @property
    def socket_base(self) -> str:
        """The same for WebSockets."""
        return f"ws{self.base.removeprefix('http')}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine: no proxy is asked then."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


class Transport:
    """Sends requests, again where that is safe. Owns the connections; `close` ends them."""

    def __init__(
        self,
        address: Address,
        api_key: str | None,
        *,
        timeout_seconds: float,
        retries: Retries,
        surroundings: Surroundings,
        transport: httpx.BaseTransport | None,
    ) -> None:
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key):
            raise InvalidRequestError("api_key: wanted: printable ASCII; found: something else; possible: dso_…")
        self.address = address
        self.retries = retries
        self.surroundings = surroundings
        self.timeout_seconds = timeout_seconds
        self.has_sockets = transport is None
        """False: what is sent goes through somebody's own transport, which knows no WebSockets."""
        self.headers: Mapping[str, str] = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(
            headers=self.headers,
            timeout=timeout_seconds,
            transport=transport,
            trust_env=not address.is_loopback,
            follow_redirects=False,
        )

    def close(self) -> None:
        """End all connections."""
        self._http.close()

    def get(self, path: str, parameters: Parameters | None = None) -> Json:
        """Return the answer to a GET. Raises the error that the service's answer stands for."""
        return self._send(self._request("GET", path, parameters), _json, repeatable=True)

    def get_as(self, kind: type[Answer], path: str, parameters: Parameters | None = None) -> Answer:
        """Return the answer to a GET as a `kind`."""
        return read(kind, self.get(path, parameters), path)

    def post_as(
        self,
        kind: type[Answer],
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        idempotency_key: str | None = None,
        timeout_seconds: float | None = None,
        within_seconds: float | None = None,
    ) -> Answer:
        """Return the answer to a POST as a `kind`; it is sent again only when it has an idempotency key.

        Waits no shorter than `timeout_seconds`, and no longer than `within_seconds`, whatever the client waits.
        """
        request = self._request("POST", path, None, body)
        if within_seconds is not None:
            request.extensions["timeout"] = httpx.Timeout(within_seconds).as_dict()
        if timeout_seconds is not None:
            request.extensions["timeout"] = httpx.Timeout(max(timeout_seconds, self.timeout_seconds)).as_dict()
        if idempotency_key is not None:
            request.headers["Idempotency-Key"] = idempotency_key
        return read(kind, self._send(request, _json, repeatable=idempotency_key is not None), path)

    def delete(self, path: str) -> None:
        """Remove what is there; sent once."""
        self._send(self._request("DELETE", path, None), lambda _: None, repeatable=False)

    def download(self, path: str, file: Path) -> Path:
        """Write the answer to a GET into the file, wholly or not at all; returns the file.

        Raises:
            InvalidRequestError: the file cannot be written.
        """
        part = file.with_name(f"{file.name}.part")

        def write(response: httpx.Response) -> None:
            with part.open("wb") as opened:
                for chunk in response.iter_bytes():
                    opened.write(chunk)
                    if opened.tell() > MAX_DOWNLOAD_BYTES:
                        raise InfrastructureError(
                            f"{path}: wanted: at most {MAX_DOWNLOAD_BYTES:,} bytes; found: more; possible: ask whoever "
                            "runs the service"
                        )

        try:
            self._send(self._request("GET", path, None), write, repeatable=True)
            return part.replace(file)
        except OSError as error:
            raise InvalidRequestError(
                f"{file}: wanted: a file that can be written; found: {error.strerror}; possible: another path"
            ) from error
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def stream(self, path: str, parameters: Parameters, headers: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        """Yield what comes in, as it comes; sent once. Errors while it comes are httpx's own."""
        request = self._request("GET", path, parameters)
        request.headers.update(headers)
        try:
            response = self._http.send(request, stream=True)
        except httpx.RequestError as error:
            raise unreachable(self.address.base, error) from error
        try:
            if not response.is_success:
                raise self._refusal(response).error
            yield response.iter_bytes()
        finally:
            response.close()

    def socket_url(self, path: str, parameters: Parameters) -> str:
        """Return the URL of a WebSocket."""
        given = {key: value for key, value in parameters.items() if value is not None}
        return f"{self.address.socket_base}{path}{'?' if given else ''}{urlencode(given)}"

    def _request(
        self, method: str, path: str, parameters: Parameters | None, body: Mapping[str, object] | None = None
    ) -> httpx.Request:
        given = {key: value for key, value in (parameters or {}).items() if value is not None}
        content = None if body is None else _encoded(body)
        headers = {} if content is None else {"Content-Type": "application/json"}
        url = f"{self.address.base}{API}{path}"
        return self._http.build_request(method, url, params=given or None, content=content, headers=headers)

    def _send(self, request: httpx.Request, take: Callable[[httpx.Response], Got], *, repeatable: bool) -> Got:
        for attempt in itertools.count(1):
            try:
                response = self._http.send(request, stream=True)
                try:
                    if response.is_success:
                        return take(response)
                    refusal = self._refusal(response)
                finally:
                    response.close()
            except httpx.RequestError as found:
                if not repeatable or attempt >= self.retries.attempts:
                    raise unreachable(self.address.base, found) from found
                self.pause(attempt)
            else:
                if not repeatable or attempt >= self.retries.attempts or refusal.status not in PASSING:
                    raise refusal.error
                self.pause(attempt, refusal.retry_after_seconds)
        raise InfrastructureError("wanted: an answer; found: no attempt left; possible: more attempts")

    def pause(self, attempt: int, wanted_seconds: float | None = None) -> None:
        """Wait as the retries say after the `attempt`-th failure."""
        chance = self.surroundings.chance()
        self.surroundings.sleep(self.retries.delay_seconds(attempt, retry_after_seconds=wanted_seconds, chance=chance))

    def _refusal(self, response: httpx.Response) -> Refusal:
        return Refusal(
            status=response.status_code,
            url=str(response.request.url),
            method=response.request.method,
            content_type=response.headers.get("content-type", ""),
            body=response.read(),
            retry_after_seconds=retry_after_seconds(response.headers.get("retry-after"), self.surroundings.now()),
        )


def segment(value: str) -> str:
    """Return an id or a name so that it stays one piece of a path. Raises `InvalidRequestError`."""
    if value in {"", ".", ".."}:
        raise InvalidRequestError(f"wanted: an id or a name; found: {value!r}; possible: one that the lists show")
    return quote(value, safe="")


def _encoded(body: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"wanted: text, numbers, true, false, null, lists and mappings; found: {error}; possible: turn the value "
            "into one of them"
        ) from error


def _json(response: httpx.Response) -> Json:
    response.read()
    try:
        answer: Json = response.json()
    except ValueError as error:
        raise InfrastructureError(
            f"wanted: JSON from {response.request.url}; found: "
            f"{response.headers.get('content-type', 'no content type')}; possible: check that this is the address of "
            "the service"
        ) from error
    return answer
