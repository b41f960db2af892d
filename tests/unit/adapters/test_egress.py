"""Where requests to addresses of strangers go, and above all where they do not."""

import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_address

import httpcore
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.adapters.egress import Egress, GuardedTransport, is_public
from dspy_optimization.errors import InvalidRequestError
from webhook_world import Receiver, Reply

PUBLIC = "93.184.216.34"


class Names:
    """A resolver: each look at any name gets the next answer, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.looks: list[tuple[str, int]] = []
        self._answers = deque(answers)

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.looks.append((host, port))
        return self._answers[0] if len(self._answers) == 1 else self._answers.popleft()


class Network(httpcore.SyncBackend):
    """Opens nothing but what it is told to; keeps what was asked for."""

    def __init__(self, port: int | None = None, refuses: Collection[str] = ()) -> None:
        self.asked: list[tuple[str, int]] = []
        self.names: list[str | None] = []
        self._port = port
        self._refuses = refuses

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        self.asked.append((host, port))
        if self._port is None or host in self._refuses:
            raise httpcore.ConnectError("refused")
        return _Spy(super().connect_tcp("127.0.0.1", self._port, timeout, local_address, socket_options), self.names)


class _Spy(httpcore.NetworkStream):
    """A connection that keeps the name TLS is asked for, and does no TLS."""

    def __init__(self, stream: httpcore.NetworkStream, names: list[str | None]) -> None:
        self._stream = stream
        self._names = names

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        self._names.append(server_hostname)
        return self

    def get_extra_info(self, info: str) -> object:
        return None if info == "ssl_object" else self._stream.get_extra_info(info)


def client(egress: Egress, *, follow_redirects: bool = False, **options: object) -> httpx.Client:
    transport = GuardedTransport(egress, tls=ssl.create_default_context(), **options)
    return httpx.Client(transport=transport, trust_env=False, follow_redirects=follow_redirects)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "017700000001",
        "0177.0.0.1",
        "0.0.0.0",
        "0",
        "localhost",
        "LocalHost.",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[0:0:0:0:0:ffff:a00:1]",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "168.63.129.16",
        "100.64.0.1",
        "100.100.100.200",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "192.88.99.1",
        "[fc00::1]",
        "[fd12:3456::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[2001::1]",
        "[2002:7f00:1::1]",
        "[2002:a9fe:a9fe::]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::10.0.0.1]",
        "[64:ff9b:1::1]",
        "[100::1]",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_is_not_public_is_refused(host: str, scheme: str) -> None:
    """In every form an address can be written in, before any connection."""
    network = Network()
    with client(Egress(), network=network) as asking, pytest.raises((InvalidRequestError, httpx.InvalidURL)):
        asking.post(f"{scheme}://{host}:8443/hook")
    with pytest.raises(InvalidRequestError, match=r"not public|no URL|without an address"):
        Egress().check(f"{scheme}://{host}:8443/hook")

    assert [] == network.asked


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111", "2002:0808:0808::1", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_the_internet_is_open(address: str) -> None:
    """Also where an IPv6 address leads to a public IPv4 one."""
    assert is_public(ip_address(address))


@given(st.integers(0, 2**32 - 1).map(ip_address))
def test_an_address_inside_another_is_judged_by_itself(address: object) -> None:
    """Mapped, 6to4 and NAT64 forms of an IPv4 address are as public as it is."""
    number = int(ip_address(str(address)))
    public = is_public(ip_address(number))
    forms = [0xFFFF << 32 | number, 0x2002 << 112 | number << 80, 0x64_FF9B << 96 | number]

    assert [public] * 3 == [is_public(ip_address(form)) for form in forms]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("ftp://example.org/x", "the scheme ftp"),
        ("file:///etc/passwd", "the scheme file"),
        ("unix:///var/run/docker.sock", "the scheme unix"),
        ("gopher://example.org", "the scheme gopher"),
        ("//example.org/x", "the scheme none"),
        ("example.org", "the scheme none"),
        ("", "the scheme none"),
        ("https:///path", "no host"),
        ("https://user:secret@example.org/", "a user or password"),
        ("https://example.org@10.0.0.1/", "a user or password"),
        ("https://example.org:99999/", "the port 99999"),
        ("https://example.org:0/", "the port 0"),
        ("https://exa\x00mple.org/", "no URL"),
        ("https://\ud800.org/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://example.org/" + "x" * 2000, "2020 characters"),
        ("http://example.org/", "http://"),
    ],
)
def test_urls_that_are_refused(url: str, found: str) -> None:
    """With what was found and what is possible; a password is not repeated."""
    with pytest.raises(InvalidRequestError, match=r"possible: ") as refused:
        Egress(resolve=Names([PUBLIC])).check(url)

    assert f"found: {found}" in str(refused.value).replace("one of ", "")
    assert "secret" not in str(refused.value)


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    """Nothing but `InvalidRequestError` comes out."""
    egress = Egress(resolve=Names([PUBLIC]))
    for url in (text, f"https://{text}", f"https://example.org/{text}"):
        try:
            kept = egress.check(url)
        except InvalidRequestError:
            continue

        assert kept.startswith("https://")


def test_any_port_and_the_plain_form() -> None:
    """Ports are free; the fragment is nobody's but the browser's."""
    egress = Egress(resolve=Names([PUBLIC]))

    assert "https://example.org:1/a?b=c" == egress.check("HTTPS://Example.org:1/a?b=c#d")


def test_every_address_of_a_name_is_checked() -> None:
    """One private address among public ones is enough."""
    names = Names([PUBLIC, "10.0.0.5"])
    with pytest.raises(InvalidRequestError, match="not public") as refused:
        Egress(resolve=names).check("https://inside.example.org")

    assert "10.0.0.5" not in str(refused.value)


def test_a_name_without_an_address_is_refused() -> None:
    """Whether the resolver says so or returns nothing."""

    def nobody(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    for resolve in (nobody, Names([])):
        with pytest.raises(InvalidRequestError, match="a name without an address"):
            Egress(resolve=resolve).check("https://nobody.example.org")


def test_a_name_that_changes_its_answer() -> None:
    """Rebinding: it is looked at once, and the connection goes to what was checked."""
    names, network = Names([PUBLIC], ["127.0.0.1"]), Network()
    with client(Egress(resolve=names), network=network) as asking, pytest.raises(httpx.NetworkError):
        asking.post("https://rebinding.example.org")

    assert [(PUBLIC, 443)] == network.asked
    assert [("rebinding.example.org", 443)] == names.looks


def test_the_host_keeps_its_name() -> None:
    """The connection goes to an address; TLS and the Host header name the host."""
    with Receiver() as receiver:
        network = Network(receiver.port, refuses=[PUBLIC])
        egress = Egress(resolve=Names([PUBLIC, "2606:4700::1"]))
        with client(egress, network=network) as asking:
            answer = asking.post("https://receiver.example.org:8443/hook", content=b"x")

    assert 200 == answer.status_code
    assert [(PUBLIC, 8443), ("2606:4700::1", 8443)] == network.asked
    assert ["receiver.example.org"] == network.names
    assert ["receiver.example.org:8443"] == [one.headers["host"] for one in receiver.received]


def test_a_redirect_is_judged_like_any_request() -> None:
    """It is not followed; a client that does follow comes to the same check."""
    with Receiver() as inside, Receiver(Reply(status=307, headers={"Location": inside.url})) as receiver:
        egress = Egress({f"127.0.0.1:{receiver.port}"})
        with client(egress) as asking:
            assert 307 == asking.post(receiver.url).status_code
        with client(egress, follow_redirects=True) as asking, pytest.raises(InvalidRequestError, match="not public"):
            asking.post(receiver.url)

    assert [] == inside.received


@pytest.mark.parametrize(
    ("allowed", "host", "address", "is_open"),
    [
        ("10.0.0.0/8", "any.example", "10.1.2.3", True),
        ("10.0.0.0/8", "any.example", "::ffff:10.1.2.3", True),
        ("10.0.0.0/8", "any.example", "172.16.0.1", False),
        ("10.1.2.3", "10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:80", "10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:81", "10.1.2.3", "10.1.2.3", False),
        ("[fc00::1]:80", "[fc00::1]", "fc00::1", True),
        ("fc00::/7", "any.example", "fd00::1", True),
        ("receiver", "Receiver", "10.1.2.3", True),
        ("Receiver:80", "receiver.", "10.1.2.3", True),
        ("receiver:81", "receiver", "10.1.2.3", False),
        ("receiver", "areceiver", "10.1.2.3", False),
        ("*.example.org", "a.example.org", "10.1.2.3", True),
        ("*.example.org", "example.org", "10.1.2.3", False),
        ("*.example.org", "aexample.org", "10.1.2.3", False),
        ("*", "anything", "169.254.169.254", True),
    ],
)
def test_what_the_owner_opens(allowed: str, host: str, address: str, is_open: bool) -> None:
    """Names, networks, ports; http too."""
    egress = Egress({allowed}, resolve=Names([address]))
    for url in (f"http://{host}/hook", f"https://{host}:80/hook"):
        if is_open:
            egress.check(url)
        else:
            with pytest.raises(InvalidRequestError, match=r"not public|http only where"):
                egress.check(url)


@pytest.mark.parametrize("entry", ["", "10.0.0.0/99", "http://x", "a:b", "x/y", "[::1"])
def test_entries_that_open_nothing(entry: str) -> None:
    """They are refused at the start."""
    with pytest.raises(InvalidRequestError, match="hosts that requests may go to"):
        Egress({entry})


def test_no_socket_but_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither unix sockets nor proxies of the environment."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with Receiver() as receiver, client(Egress({"127.0.0.0/8"})) as asking:
        assert 200 == asking.post(receiver.url).status_code


def test_a_slow_answer_ends_in_time() -> None:
    """The limit is for everything: bytes that come one by one do not stretch it."""
    with Receiver(Reply(drip_seconds=0.05)) as receiver, client(Egress({"127.0.0.1"}), total_seconds=0.3) as asking:
        begun = time.monotonic()
        with pytest.raises(httpx.TimeoutException):
            asking.post(receiver.url)
        took = time.monotonic() - begun

    assert took < 3.0


def test_a_slow_name_ends_in_time() -> None:
    """The limit counts from the first look at the name; nothing is connected to afterwards."""
    ended = threading.Event()

    def slow(host: str, port: int) -> Sequence[str]:
        ended.wait(20.0)
        return ["127.0.0.1"]

    network = Network()
    with client(Egress({"*"}, resolve=slow), total_seconds=0.1, network=network) as asking:
        begun = time.monotonic()
        with pytest.raises(InvalidRequestError, match=r"slow\.example, a name that was not looked up in time"):
            asking.post("http://slow.example/")
        took = time.monotonic() - begun
        ended.set()

    assert took < 3.0
    assert [] == network.asked


def test_a_large_body_is_sent_whole() -> None:
    """However it is cut into pieces."""
    content = bytes(range(256)) * 1024
    with Receiver() as receiver, client(Egress({"127.0.0.1"})) as asking:
        asking.post(receiver.url, content=content)

    assert [content] == [one.body for one in receiver.received]


def test_threads_share_a_transport() -> None:
    """A connection a request; none is left open."""
    with Receiver() as receiver, client(Egress({"127.0.0.1"})) as asking:
        threads = [threading.Thread(target=asking.post, args=[receiver.url]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert 8 == len(receiver.received)
