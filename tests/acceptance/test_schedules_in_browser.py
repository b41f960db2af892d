"""Schedules in a real browser: added beside an estimate, looked at, paused, fired and deleted."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from test_dashboard_in_browser import CHROMIUM, EVIL, Tab, browsing

from dspy_optimization.adapters.postgres import EmbeddedPostgres
from service_world import Service, model_server, request_body, running, service_settings

pytestmark = [
    pytest.mark.xdist_group("service"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)"),
]
ROW = "[...document.querySelectorAll('#list tbody tr')].find((one) => one.innerText.includes({name!r}))"


@pytest.fixture(scope="module")
def service(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for no keys."""
    name = f"schedules_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with model_server() as model:
        settings = service_settings(postgres.url_of(name), model.base_url, tmp_path_factory.mktemp("data"))
        with running(settings) as found:
            yield found


@pytest.fixture(scope="module")
def tab(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser on which nothing may go wrong."""
    with browsing(service.base_url, tmp_path_factory.mktemp("chromium")) as found:
        yield found
        found.value("1")  # whatever was sent meanwhile is read
        assert [] == found.troubles


def row(name: str) -> str:
    return ROW.format(name=name)


def press(tab: Tab, name: str, action: str, answer: str | None = None) -> None:
    """Press a button of a schedule, and another one in the question that follows."""
    tab.until("!document.querySelector('dialog')", "no question")
    tab.value(f"{row(name)}.querySelector('[data-action={action}]').click()")
    if answer is not None:
        tab.until("Boolean(document.querySelector('dialog[open]'))", "question")
        tab.value(f"document.querySelector('dialog[open] [value={answer}]').click()")


def test_nothing_recurs_yet(service: Service, tab: Tab) -> None:
    """The empty state, and the way to the first one."""
    tab.open("/schedules")
    tab.until("Boolean(document.querySelector('[data-state=empty] a'))", "empty")

    assert "/new#repeat" == tab.value("document.querySelector('[data-state=empty] a').getAttribute('href')")


def test_a_schedule_is_added_beside_the_estimate(service: Service, tab: Tab) -> None:
    """Only once it was estimated; what says when it recurs changes no estimate; a refusal stands at its field."""
    ended = service.submitted()
    service.until(ended, "completed")
    tab.open(f"/new?from={ended}#repeat")
    tab.until("Boolean(document.querySelector('#repeat[open] #keep'))", "form")

    assert tab.value("document.querySelector('#keep').disabled")

    tab.value("document.querySelector('#ask').click()")
    tab.until("!document.querySelector('#keep').disabled", "estimate")
    write = (
        "for (const [id, text] of {pairs}) {{ const field = document.getElementById(id); field.value = text;"
        " field.dispatchEvent(new Event('input', {{bubbles: true}}));"
        " field.dispatchEvent(new Event('change', {{bubbles: true}})); }}"
    )
    tab.value(write.format(pairs=[["schedule-name", EVIL], ["schedule-cron", "0 3 30 2 *"], ["schedule-zone", "UTC"]]))

    assert not tab.value("document.querySelector('#keep').disabled"), "the estimate still holds"

    enter = "new KeyboardEvent('keydown', {key: 'Enter', bubbles: true, cancelable: true})"
    tab.value(f"document.querySelector('#schedule-name').dispatchEvent({enter})")
    tab.until("Boolean(document.querySelector('#schedule-cron[aria-invalid=true]'))", "refusal")
    assert "never due" in tab.value("document.querySelector('#schedule-cron').closest('.field').innerText")

    tab.value(write.format(pairs=[["schedule-cron", "0 3 1 1 *"]]))
    tab.value("document.querySelector('#keep').click()")
    tab.until("location.pathname === '/schedules'", "the list")
    tab.until(f"Boolean({row(EVIL)})", "its row")

    # Refusals are told in the console of the browser too.
    tab.troubles[:] = [one for one in tab.troubles if "422" not in one]
    assert "not due yet" in tab.value(f"{row(EVIL)}.innerText")
    assert 0 == tab.value("document.querySelectorAll('main img').length")
    assert EVIL == service.client.get("/api/v1/schedules").json()["items"][0]["name"]


def test_a_schedule_is_looked_at_and_steered(service: Service, tab: Tab) -> None:
    """Details with the next five times; paused, resumed, fired; its optimization says what made it; deleted."""
    body = {
        "name": "nightly",
        "cron": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "request": request_body(prefix="night"),
    }
    assert 201 == service.client.post("/api/v1/schedules", json=body).status_code
    tab.open("/schedules")
    press(tab, "nightly", "show")
    tab.until("document.querySelectorAll('dialog li').length === 5", "details")
    assert "Europe/Berlin" in tab.value("document.querySelector('dialog').innerText")
    tab.value("document.querySelector('dialog').close()")
    press(tab, "nightly", "pause")
    tab.until(f"{row('nightly')}.innerText.includes('paused')", "paused")
    press(tab, "nightly", "resume")
    tab.until(f"!{row('nightly')}.innerText.includes('paused')", "resumed")
    press(tab, "nightly", "fire", "yes")
    tab.until("location.pathname.startsWith('/optimizations/0')", "its optimization")
    tab.until("document.querySelector('#head')?.innerText.includes('completed')", "end", seconds=60.0)
    tab.open(f"{tab.value('location.pathname')}#config")
    tab.until("document.querySelector('#panel-config').innerText.includes('Made by the schedule')", "what made it")
    tab.open("/schedules")
    tab.until(f"{row('nightly')}.innerText.includes('completed')", "outcome")
    press(tab, "nightly", "remove", "no")
    assert tab.value(f"Boolean({row('nightly')})")
    press(tab, "nightly", "remove", "yes")
    tab.until(f"!{row('nightly')}", "gone")


def test_a_phone_is_wide_enough(service: Service, tab: Tab) -> None:
    """With a schedule in it; what made nothing says why."""
    tab.open("/schedules")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    tab.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=False)
    overflow = tab.value(wide)
    tab.ask("Emulation.clearDeviceMetricsOverride")

    assert 0 == overflow
