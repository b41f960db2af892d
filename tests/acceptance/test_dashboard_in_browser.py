"""The dashboard in a real browser: a real service, a real optimization, no error, no violation, no other host.

Chromium is spoken to over its debugging protocol, so that nothing has to be installed but Chromium itself.
"""

import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from websockets.sync.client import ClientConnection, connect

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from service_world import Service, model_server, running, service_settings, words

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
EVIL = "<img src=x onerror=document.title='pwned'>"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--no-first-run", "--remote-debugging-port=0", "--window-size=1280,900",
)  # fmt: skip

PAGES = (
    "/", "/optimizations", "/new", "/schedules", "/agents", "/agents/capitals", "/datasets", "/models", "/system",
    "/login", "/docs",
)  # fmt: skip

pytestmark = [
    pytest.mark.xdist_group("service"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)"),
]


@dataclass(kw_only=True)
class Tab:
    """A page of the browser, and what went wrong on it."""

    socket: ClientConnection
    base_url: str
    troubles: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return what it gave."""
        number = next(self._numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=30.0))
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message.get("result", {}))
            self._note(message)

    def value(self, expression: str) -> Any:
        """Return what a script gives."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, path: str) -> None:
        """Go there, and wait until nothing is busy."""
        self.ask("Page.navigate", url=self.base_url + path)
        busy = "[...document.querySelectorAll('[aria-busy], .skeleton')].some((one) => one.checkVisibility())"
        self.until(f"document.readyState === 'complete' && !{busy}", path)

    def until(self, expression: str, what: str, seconds: float = 20.0) -> None:
        """Wait for a condition."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.value(expression):
                    return
            except AssertionError as error:
                if "navigated" not in str(error):  # it was asked while the page was being left
                    raise
            time.sleep(0.05)
        raise AssertionError(
            f"{what}: {expression} did not become true; {self.value('document.body.innerText')[:2000]}"
        )

    def text(self) -> str:
        """Return what can be read."""
        return str(self.value("document.body.innerText"))

    def _note(self, message: Mapping[str, Any]) -> None:
        given = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.troubles.append(f"exception: {given['exceptionDetails']}")
            case "Runtime.consoleAPICalled" if given["type"] in {"error", "warning", "assert"}:
                self.troubles.append(f"console: {given['args']}")
            case "Log.entryAdded" if given["entry"]["level"] in {"error", "warning"}:
                self.troubles.append(f"log: {given['entry']}")
            case "Network.requestWillBeSent":
                url = given["request"]["url"]
                if not url.startswith((self.base_url + "/", "data:")):
                    self.troubles.append(f"another host: {url}")


@contextmanager
def browsing(base_url: str, folder: Path) -> Iterator[Tab]:
    """Start a browser with one page."""
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        place = folder / "DevToolsActivePort"
        end = time.monotonic() + 60.0
        while not place.exists() or "\n" not in place.read_text():
            assert process.poll() is None, "Chromium ended"
            assert time.monotonic() < end, "Chromium did not start"
            time.sleep(0.05)
        port, path = place.read_text().splitlines()[:2]
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None) as browser:
            opener = Tab(socket=browser, base_url=base_url)
            target = opener.ask("Target.createTarget", url="about:blank")["targetId"]
            with connect(f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=None, proxy=None) as socket:
                tab = Tab(socket=socket, base_url=base_url)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    tab.ask(f"{domain}.enable")
                yield tab
    finally:
        process.terminate()
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20.0)


@pytest.fixture(scope="module")
def service(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for no keys."""
    name = f"dashboard_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with model_server() as model:
        settings = service_settings(postgres.url_of(name), model.base_url, tmp_path_factory.mktemp("data"))
        with running(settings) as found:
            yield found


@pytest.fixture(scope="module")
def tab(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser."""
    with browsing(service.base_url, tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def ended(service: Service, tab: Tab) -> str:
    """An optimization that has ended; its dataset has a name that would like to be markup. Empty states come first."""
    for path in ("/", "/optimizations", "/agents", "/datasets"):
        tab.open(path)
        assert tab.value("Boolean(document.querySelector('[data-state=empty]'))"), path
    optimization_id = service.submitted(dataset={"examples": words(), "name": EVIL})
    service.until(optimization_id, "completed")
    return optimization_id


@pytest.fixture
def clean(tab: Tab, ended: str) -> Iterator[Callable[[str], None]]:
    """Open pages on which nothing may go wrong."""
    tab.troubles.clear()
    yield tab.open
    tab.value("1")  # whatever was sent meanwhile is read

    assert [] == tab.troubles
    assert "pwned" != tab.value("document.title")


@pytest.mark.parametrize("path", PAGES)
def test_pages_work(clean: Callable[[str], None], tab: Tab, path: str) -> None:
    """No error, no violation of the policy, no other host, nothing wider than a phone."""
    clean(path)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    tab.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=False)
    overflow = tab.value(wide)
    tab.ask("Emulation.clearDeviceMetricsOverride")

    assert 0 == tab.value("document.querySelectorAll('[data-state=error], [data-state=missing]').length")
    assert 0 == overflow


@pytest.mark.parametrize("name", ["progress", "candidates", "examples", "events", "config"])
def test_parts_of_an_optimization_work(clean: Callable[[str], None], tab: Tab, ended: str, name: str) -> None:
    """The verdict is said in words with its interval; every tab shows something; charts are drawn under the policy."""
    clean(f"/optimizations/{ended}#{name}")
    tab.until(f"!document.querySelector('#panel-{name}').hidden", name)
    tab.until(f"document.querySelector('#panel-{name}').innerText.length > 40", name)
    if name in {"progress", "candidates"}:
        tab.until(f"Boolean(document.querySelector('#panel-{name} canvas'))", "chart")

    assert "improved" in tab.text()
    assert tab.value("document.querySelectorAll('.interval.large').length") == 1
    assert " to +" in tab.value("document.querySelector('.interval.large').getAttribute('aria-label')")


def test_what_users_wrote_stays_text(clean: Callable[[str], None], service: Service, tab: Tab, ended: str) -> None:
    """A name that is markup is shown as it was written."""
    dataset = service.client.get(f"/api/v1/optimizations/{ended}").json()["request"]["dataset"]
    clean(f"/datasets/{dataset}")

    assert EVIL == tab.value("document.querySelector('h1').textContent")
    assert 0 == tab.value("document.querySelectorAll('main img').length")


def test_an_optimization_is_started_and_followed(clean: Callable[[str], None], tab: Tab) -> None:
    """Estimate first, then start; the page of the optimization shows it ending without being loaded again."""
    clean("/new?agent=capitals")

    assert tab.value("document.querySelector('#start').disabled")

    tab.value("document.querySelector('[data-choose=labeled_fewshot]').click(); document.querySelector('#ask').click()")
    tab.until("!document.querySelector('#start').disabled", "estimate")
    tab.value("document.querySelector('#start').click()")
    tab.until("location.pathname.startsWith('/optimizations/0')", "its page")
    tab.until("document.querySelector('#head')?.innerText.includes('completed')", "end", seconds=60.0)
    tab.until("Boolean(document.querySelector('.verdict-sentence'))", "verdict")


def test_wrong_fields_are_marked(tab: Tab, ended: str) -> None:
    """A refusal stands at the field it is about."""
    tab.open("/new?agent=capitals")
    tab.value("document.querySelector('#max_lm_calls').value = '3'; document.querySelector('#ask').click()")
    tab.until("Boolean(document.querySelector('#max_lm_calls[aria-invalid=true]'))", "mark")

    assert "found: 3" in tab.value("document.querySelector('#max_lm_calls').closest('.field').innerText")


def test_unknown_ones_are_told(tab: Tab, ended: str) -> None:
    """The state of what is missing, and a way on."""
    tab.open("/optimizations/00000000-0000-7000-8000-0000000000ff")
    tab.until("Boolean(document.querySelector('[data-state=missing] a'))", "missing")
