"""Requests to addresses that strangers name: they reach the public internet and nothing behind it.

A name is resolved once, every address it has is checked, and the connection goes to a checked address: a name that
answers differently the next time changes nothing. Nothing is redirected, no proxy of the environment is used, and no
socket but TCP is opened. The owner of the engine opens private places:

    receiver.example.org    this name, whatever it leads to       10.0.0.0/8         every address of a network
    receiver:8080           the same, one port                    192.168.1.7:8080   one address, one port
    *.example.org           every name below                      *                  everything
"""

import ssl
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

import httpcore
import httpx

from dspy_optimization.adapters.lookups import Lookups, Resolver, system_resolver
from dspy_optimization.errors import InvalidRequestError

Address: TypeAlias = IPv4Address | IPv6Address

TOTAL_SECONDS = 10.0
LONGEST_URL = 2000
_WRITTEN_AT_ONCE = 16 * 1024

_NAT64 = IPv6Network("64:ff9b::/96")
_UNICAST = IPv6Network("2000::/3")
# Global by their number, but not on the way to anybody: relays, documentation, and what a cloud answers inside.
_INSIDE = (IPv4Network("192.88.99.0/24"), IPv4Network("168.63.129.16/32"), IPv6Network("3fff::/20"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a request may go: a host as the URL names it, and the checked addresses it had."""

    host: str
    port: int
    addresses: Sequence[Address]


class Egress:
    """Says where requests may go. Thread-safe."""

    def __init__(self, allowed: Collection[str] = frozenset(), *, resolve: Resolver | None = None) -> None:
        """Open nothing.

        Args:
            allowed: hosts and networks beyond the public internet, as the module shows.
            resolve: None: the system's.
        Raises:
            InvalidRequestError: an entry of `allowed` names nothing.
        """
        self._opened = tuple(_opened(entry) for entry in sorted(allowed))
        self._lookups = Lookups(system_resolver if resolve is None else resolve)

    def check(self, url: str) -> str:
        """Return the URL in its plain form. Raises `InvalidRequestError` when no request may go there."""
        if len(url) > LONGEST_URL:
            raise _refused(f"one of {len(url)} characters", f"at most {LONGEST_URL}")
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise _refused(f"no URL ({error})", "https://receiver.example.org/path") from error
        self.destination(parsed)
        return str(parsed.copy_with(fragment=None))

    def destination(self, url: httpx.URL, seconds: float = TOTAL_SECONDS) -> Destination:
        """Return where a request to the URL goes. Raises `InvalidRequestError` when it must not, or cannot.

        Args:
            url: of the request.
            seconds: how long looking its name up may take.
        """
        if url.scheme not in {"http", "https"}:
            raise _refused(f"the scheme {url.scheme or 'none'}", "https://")
        if url.userinfo:
            raise _refused("a user or password in it", "leave it out: requests are signed")
        host = url.raw_host.decode("ascii").lower()
        if not host:
            raise _refused("no host", "https://receiver.example.org/path")
        port = url.port if url.port is not None else {"http": 80, "https": 443}[url.scheme]
        if not 0 < port < 65536:
            raise _refused(f"the port {port}", "1 to 65535, or none")
        try:
            addresses = tuple(ip_address(one) for one in self._lookups.look(host, port, seconds))
        except TimeoutError as error:
            raise _refused(f"{host}, a name that was not looked up in time", "a name that resolves") from error
        except OSError as error:
            raise _refused(f"{host}, a name without an address", "a name that resolves") from error
        if not addresses:
            raise _refused(f"{host}, a name without an address", "a name that resolves")
        opened = [self._is_open(host, address, port) for address in addresses]
        if not all(is_open or is_public(address) for is_open, address in zip(opened, addresses, strict=True)):
            # Which address is not said: it would tell strangers how the network inside is made.
            raise _refused(
                f"{host}, which leads to an address that is not public",
                "a public one; or the owner of the engine opens it",
            )
        if url.scheme == "http" and not all(opened):
            raise _refused("http://", "https://; http only where the owner of the engine opened the host")
        return Destination(host=host, port=port, addresses=addresses)

    def _is_open(self, host: str, address: Address, port: int) -> bool:
        return any(entry.opens(host, address, port) for entry in self._opened)


def is_public(address: Address) -> bool:
    """Say whether an address is on the public internet, also where it hides another address."""
    if isinstance(address, IPv6Address):
        inner = _hidden(address)
        if inner is not None:
            return is_public(inner)
        if address not in _UNICAST:
            return False
    if any(address.version == network.version and address in network for network in _INSIDE):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class GuardedTransport(httpx.BaseTransport):
    """Transport that goes where its `Egress` lets it, over a connection of its own a request. Thread-safe."""

    def __init__(
        self,
        egress: Egress,
        *,
        total_seconds: float = TOTAL_SECONDS,
        tls: ssl.SSLContext | None = None,
        network: httpcore.NetworkBackend | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing yet.

        Args:
            egress: says where it may go.
            total_seconds: from the first look at the name to the last byte, however slowly they come.
            tls: None: certificates as browsers accept them.
            network: opens connections to addresses; None: real ones.
            seconds: a monotonic clock.
        """
        self._egress = egress
        self._total_seconds = total_seconds
        self._tls = httpx.create_ssl_context(trust_env=False) if tls is None else tls
        self._network = httpcore.SyncBackend() if network is None else network
        self._seconds = seconds

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send. Raises `InvalidRequestError` when the request must not go there, else `httpx.TransportError`."""
        limit = _Limit(end=self._seconds() + self._total_seconds, seconds=self._seconds)
        destination = self._egress.destination(request.url, limit.left())
        stream = request.stream
        if not isinstance(stream, httpx.SyncByteStream):
            raise TypeError(f"wanted a synchronous body, found {type(stream).__name__}")
        pool = httpcore.ConnectionPool(
            ssl_context=self._tls,
            max_connections=1,
            max_keepalive_connections=0,
            network_backend=_Pinned(self._network, destination, limit),
        )
        try:
            with _translated():
                answer = pool.handle_request(
                    httpcore.Request(
                        method=request.method,
                        url=httpcore.URL(
                            scheme=request.url.raw_scheme,
                            host=request.url.raw_host,
                            port=request.url.port,
                            target=request.url.raw_path,
                        ),
                        headers=request.headers.raw,
                        content=stream,
                    )
                )
        except BaseException:
            pool.close()
            raise
        body = answer.stream
        if not isinstance(body, Iterable):
            raise TypeError(f"wanted a synchronous body, found {type(body).__name__}")
        return httpx.Response(status_code=answer.status, headers=answer.headers, stream=_Body(body, pool))


class _Body(httpx.SyncByteStream):
    """A body that closes its connection."""

    def __init__(self, stream: Iterable[bytes], pool: httpcore.ConnectionPool) -> None:
        self._stream = stream
        self._pool = pool

    def __iter__(self) -> Iterator[bytes]:
        with _translated():
            yield from self._stream

    def close(self) -> None:
        self._pool.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """When everything has to be over."""

    end: float
    seconds: Callable[[], float]

    def left(self) -> float:
        left = self.end - self.seconds()
        if left <= 0:
            raise httpcore.ReadTimeout("no whole answer in time")
        return left


class _Pinned(httpcore.NetworkBackend):
    """Connects to the checked addresses, one after the other, whatever host it is asked for."""

    def __init__(self, network: httpcore.NetworkBackend, destination: Destination, limit: _Limit) -> None:
        self._network = network
        self._destination = destination
        self._limit = limit

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the base class's signature; the limit is for all of it
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        wanted = self._destination
        if (host.lower(), port) != (wanted.host, wanted.port):
            raise httpcore.ConnectError(f"wanted a connection to {wanted.host}:{wanted.port}, found {host}:{port}")
        *others, last = wanted.addresses
        for address in others:
            try:
                return self._connect(address, port, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(last, port, local_address, socket_options)

    def _connect(
        self,
        address: Address,
        port: int,
        local_address: str | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.NetworkStream:
        left = self._limit.left()
        return _Timed(self._network.connect_tcp(str(address), port, left, local_address, socket_options), self._limit)

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002 - the base class's signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 - the base class's signature
    ) -> httpcore.NetworkStream:
        raise httpcore.ConnectError(f"wanted a host, found the socket {path}")


class _Timed(httpcore.NetworkStream):
    """A connection that ends in time, also when bytes come one by one."""

    def __init__(self, stream: httpcore.NetworkStream, limit: _Limit) -> None:
        self._stream = stream
        self._limit = limit

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the base class's signature
        return self._stream.read(max_bytes, self._limit.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the base class's signature
        for start in range(0, len(buffer), _WRITTEN_AT_ONCE):
            self._stream.write(buffer[start : start + _WRITTEN_AT_ONCE], self._limit.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - the base class's signature
    ) -> httpcore.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, self._limit.left()), self._limit)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """One entry of the allow-list: a network, or a name."""

    network: IPv4Network | IPv6Network | None = None
    name: str = ""
    port: int | None = None

    def opens(self, host: str, address: Address, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            plain = (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
            return plain.version == self.network.version and plain in self.network
        host = host.rstrip(".")
        return self.name in {"*", host} or (self.name.startswith("*.") and host.endswith(self.name[1:]))


def _opened(entry: str) -> _Opened:
    text = entry.strip().lower()
    try:
        return _Opened(network=ip_network(text, strict=False))
    except ValueError:
        pass
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _no_entry(entry) from error
    if not host or parts.path or parts.query or parts.username is not None:
        raise _no_entry(entry)
    try:
        return _Opened(network=ip_network(host), port=port)
    except ValueError:
        return _Opened(name=host.rstrip("."), port=port)


def _hidden(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that this one leads to."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.sixtofour


def _no_entry(entry: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"wanted: hosts that requests may go to; found: {entry!r}; possible: receiver.example.org, receiver:8080, "
        "*.example.org, 10.0.0.0/8, 192.168.1.7:8080, *"
    )


def _refused(found: str, possible: str) -> InvalidRequestError:
    return InvalidRequestError(f"wanted: a URL that requests may go to; found: {found}; possible: {possible}")


@contextmanager
def _translated() -> Iterator[None]:
    """Turn errors of httpcore into those of httpx."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.TimeoutException(str(error)) from error
    except httpcore.NetworkError as error:
        raise httpx.NetworkError(str(error)) from error
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise httpx.ProtocolError(str(error)) from error
