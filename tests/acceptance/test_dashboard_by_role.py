"""The dashboard offers what the key allows; the rest is shown, does nothing, and says why."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest
from test_dashboard_in_browser import CHROMIUM, Tab, browsing

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres, PostgresKeys
from dspy_optimization.optimization.request import OptimizationStatus as Status
from dspy_optimization.serving import ServiceRole
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole
from evidence_world import keep
from service_world import running, service_settings

pytestmark = [
    pytest.mark.xdist_group("service"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)"),
]
DISABLED = "[...document.querySelectorAll('{}')].map((one) => one.disabled)"


@pytest.fixture(scope="module")
def looking(
    postgres: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[AccessRole, str], Tab]]:
    """Open a page as somebody; `{}` in its path is the id of an optimization that runs."""
    name = f"roles_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    url = postgres.url_of(name)
    settings = service_settings(url, "http://127.0.0.1:9/v1", tmp_path_factory.mktemp("data"), require_keys=True)
    with (
        Database.open(url) as database,
        running(settings, ServiceRole.API) as service,
        browsing(service.base_url, tmp_path_factory.mktemp("chromium")) as tab,
    ):
        kept = keep(database, 3, 4, status=Status.RUNNING)
        keys = {role: PostgresKeys(database).create(LOCAL_TENANT, role, role.value) for role in AccessRole}

        def look(role: AccessRole, path: str) -> Tab:
            tab.ask("Network.setCookie", name="dspy_opt_key", value=keys[role], url=service.base_url)
            tab.open(path.format(kept.id))
            return tab

        yield look


@pytest.mark.parametrize("role", AccessRole)
def test_an_optimization_is_steered_by_who_may(looking: Callable[[AccessRole, str], Tab], role: AccessRole) -> None:
    """A viewer sees that it could be paused, and why not by this key."""
    is_viewer = role is AccessRole.VIEWER
    tab = looking(role, "/optimizations/{}")
    tab.until("document.querySelectorAll('[data-action]').length === 2", "buttons")

    assert [is_viewer] * 2 == tab.value(DISABLED.format("[data-action]"))
    assert is_viewer is ("Your key (viewer) does not allow to hand in or steer." in tab.text())
    assert is_viewer is not tab.value("Boolean(document.querySelector('#head a[href^=\"/new\"]'))")


@pytest.mark.parametrize("role", AccessRole)
@pytest.mark.parametrize("path", ["/agents", "/datasets"])
def test_things_are_added_by_who_may(looking: Callable[[AccessRole, str], Tab], path: str, role: AccessRole) -> None:
    """The button stands in the page from the beginning; dates stand in the list."""
    tab = looking(role, path)
    tab.until("Boolean(document.querySelector('#list table time'))", "list")

    assert [role is AccessRole.VIEWER] == tab.value(DISABLED.format("#add"))
    assert (role is AccessRole.VIEWER) is not tab.value("Boolean(document.querySelector('#list a[href^=\"/new\"]'))")


@pytest.mark.parametrize("role", AccessRole)
def test_lanes_and_hosts_are_for_operators(looking: Callable[[AccessRole, str], Tab], role: AccessRole) -> None:
    """Everybody sees how busy they are."""
    is_operator = role is AccessRole.ADMINISTRATOR
    tab = looking(role, "/system")

    assert [not is_operator] * 6 == tab.value(DISABLED.format("[data-lane] input, [data-lane] button"))
    assert is_operator is ("process " in tab.value("document.querySelector('[aria-label=Workers]').innerText"))


def test_an_operator_says_how_many_run_in_each_worker(looking: Callable[[AccessRole, str], Tab]) -> None:
    """A number, one that is refused with its reason, and none again: any number."""
    tab = looking(AccessRole.ADMINISTRATOR, "/system")
    field = "document.querySelector('#lane-cpu-worker')"

    def say(number: str) -> None:
        tab.value(f"{field}.value = '{number}', {field}.form.requestSubmit()")

    first = tab.value(f"{field}.value")
    say("3")
    tab.until("document.body.innerText.includes('10 at once, 3 in each worker from now on.')", "what was changed")
    say("11")
    tab.until("document.body.innerText.includes('wanted: from 1 to 10')", "why it was refused")
    say("")
    tab.until("document.body.innerText.includes('10 at once from now on.')", "any number")

    assert "" == first


@pytest.mark.parametrize("role", AccessRole)
def test_who_may_go_first(looking: Callable[[AccessRole, str], Tab], role: AccessRole) -> None:
    """The priority high can be chosen by operators, an estimate be asked for by who may run."""
    tab = looking(role, "/new")

    assert [role is not AccessRole.ADMINISTRATOR] == tab.value(DISABLED.format("#priority [value=high]"))
    assert [role is AccessRole.VIEWER] == tab.value(DISABLED.format("#ask"))
