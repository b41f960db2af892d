"""The front on the page of an optimization, sending another candidate to the gate, and the form that asks for goals."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from test_dashboard_in_browser import CHROMIUM, Tab, browsing
from test_picking_over_http import OBJECTIVES, counted, showing

from dspy_optimization.adapters.postgres import Database, EmbeddedPostgres, PostgresKeys
from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.optimization.request import OptimizationStatus as Status
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole
from dspy_optimization.testing.model_server import ModelServer
from evidence_world import ACCURACY, keep
from service_world import Service, running, service_settings, words

pytestmark = [
    pytest.mark.xdist_group("service"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)"),
]
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SEND = "[...document.querySelectorAll('[data-send]')]"


@dataclass(frozen=True, kw_only=True)
class World:
    """A service that asks for keys, what ended and what runs on it, and a browser."""

    service: Service
    tab: Tab
    keys: dict[AccessRole, str]
    ended: str
    single: str
    going_on: str

    def open(self, path: str, role: AccessRole = AccessRole.RESEARCHER) -> Tab:
        """Go there as somebody."""
        self.tab.ask("Network.setCookie", name="dspy_opt_key", value=self.keys[role], url=self.service.base_url)
        # The same address with another fragment would not be loaded again.
        self.tab.ask("Page.navigate", url="about:blank")
        self.tab.until("location.href === 'about:blank'", "the page is left")
        self.tab.open(path)
        self.tab.until("location.href !== 'about:blank' && Boolean(document.querySelector('h1'))", path)
        self.tab.until("![...document.querySelectorAll('.skeleton')].some((one) => one.checkVisibility())", path)
        return self.tab

    def front(self, optimization_id: str, role: AccessRole = AccessRole.RESEARCHER) -> Tab:
        """Open the front of an optimization, drawn."""
        tab = self.open(f"/optimizations/{optimization_id}#front", role)
        tab.until("document.querySelectorAll('#panel-front canvas').length > 1", "charts")
        return tab


@pytest.fixture(scope="module")
def world(postgres: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    name = f"fronts_{uuid4().hex}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    url, folder = postgres.url_of(name), tmp_path_factory.mktemp("data")
    cheap = Objective(metric="cost_usd", direction=Direction.MINIMIZE)
    with (
        Database.open(url) as database,
        ModelServer(counted) as model,
        running(service_settings(url, model.base_url, folder, require_keys=True)) as service,
        browsing(service.base_url, tmp_path_factory.mktemp("chromium")) as tab,
    ):
        keys = {role: PostgresKeys(database).create(LOCAL_TENANT, role, role.value) for role in AccessRole}
        service.client.headers["Authorization"] = f"Bearer {keys[AccessRole.RESEARCHER]}"
        ended = service.submitted(
            dataset={"examples": words(120, "front"), "name": "front"},
            objectives=OBJECTIVES,
            algorithms=[{"given": {"candidates": [showing(1), showing(3), showing(6)]}}],
            policy={"type": "max_cost", "metric": "tokens", "at_most": 160},
        )
        service.until(ended, "completed")
        single = service.submitted()
        service.until(single, "completed")
        going_on = keep(database, 20, objectives=(ACCURACY, cheap), status=Status.RUNNING)
        yield World(service=service, tab=tab, keys=keys, ended=ended, single=single, going_on=str(going_on.id))


@pytest.fixture
def clean(world: World) -> Iterator[World]:
    """Nothing may go wrong on the pages that are opened."""
    world.tab.value("1")
    world.tab.troubles.clear()
    yield world
    world.tab.value("1")

    assert [] == world.tab.troubles


def told(tab: Tab, selector: str) -> str:
    return str(tab.value(f"document.querySelector({json.dumps(selector)}).innerText"))


def test_the_front_is_shown_beside_the_sealed_verdict(clean: World) -> None:
    """Val is labelled optimistic, the policy says why, charts say their numbers in words, a phone shows all of it."""
    tab = clean.front(clean.ended)
    front = clean.service.client.get(f"/api/v1/optimizations/{clean.ended}/front").json()
    results = clean.service.status(clean.ended)["results"]

    assert "measured on val: optimistic" in told(tab, "[aria-label='Measured on val']")
    assert front["pick"]["reason"] in told(tab, "[aria-label='Measured on val']")
    assert results["verdict"].replace("_", " ") in told(tab, "[aria-label='The sealed verdict']")
    assert front["pick"]["reason"] in told(tab, "#result")
    labels = tab.value("[...document.querySelectorAll('#panel-front .chart')].map((one) => one.ariaLabel)")
    assert all("exact_match 0." in label and "tokens 1" in label for label in labels[:2])
    rows = tab.value("[...document.querySelectorAll('#panel-front tbody tr')].map((one) => one.innerText)")
    assert len({point["candidate"] for point in (*front["points"], front["baseline"], front["chosen"])}) == len(rows)
    assert all("100 %" in row or "on the front" not in row for row in rows)
    tab.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=False)
    overflow = tab.value(WIDE)
    tab.ask("Emulation.clearDeviceMetricsOverride")
    assert 0 == overflow


def test_one_goal_has_no_front(clean: World) -> None:
    """No tab, and its address leads to the progress; the arrow keys pass over it."""
    tab = clean.open(f"/optimizations/{clean.single}#front")
    tab.until("!document.querySelector('#panel-progress').hidden", "progress")

    assert tab.value("document.querySelector('#tab-front').hidden")
    tab.value("document.querySelector('#tab-progress').focus()")
    key = "new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true})"
    tab.value(f"document.querySelector('#tab-progress').dispatchEvent({key}) && 1")
    assert "tab-candidates" == tab.value("document.activeElement.id")
    assert "Who else is on the front" not in told(tab, "#result")


def test_while_it_runs_the_front_so_far_is_shown_and_nobody_goes_to_the_gate(clean: World) -> None:
    """Who is beaten by nobody by the means alone; every button says why it does nothing."""
    tab = clean.front(clean.going_on)
    means = clean.service.client.get(f"/api/v1/optimizations/{clean.going_on}/means").json()["items"]

    def beaten(one: dict[str, Any]) -> bool:
        mine = one["means"]
        return any(
            other["exact_match"] >= mine["exact_match"] and other["cost_usd"] <= mine["cost_usd"] and other != mine
            for other in (each["means"] for each in means)
        )

    on_front = {(one["means"]["exact_match"], one["means"]["cost_usd"]) for one in means if not beaten(one)}
    rows = tab.value("[...document.querySelectorAll('#panel-front tbody tr')].map((one) => one.innerText)")
    assert len(on_front) == sum("not on the front" not in row for row in rows)
    assert "The front so far" in told(tab, "#panel-front")
    assert "not yet" in told(tab, "[aria-label='The sealed verdict']")
    assert {True} == set(tab.value(f"{SEND}.map((one) => one.disabled)"))
    assert "It has not ended yet." in told(tab, "#panel-front table")


@pytest.mark.parametrize("role", AccessRole)
def test_who_may_send_to_the_gate(clean: World, role: AccessRole) -> None:
    """A viewer sees the button, disabled, with the reason in words; the chosen one was there already."""
    tab = clean.front(clean.ended, role)
    is_viewer = role is AccessRole.VIEWER
    chosen = clean.service.client.get(f"/api/v1/optimizations/{clean.ended}/front").json()["chosen"]["candidate"]

    states = tab.value(f"Object.fromEntries({SEND}.map((one) => [one.dataset.send, one.disabled]))")
    assert states.pop(chosen, True)
    assert states
    assert {is_viewer} == set(states.values())
    assert is_viewer is ("Your key (viewer) does not allow to hand in or steer." in told(tab, "#panel-front table"))


def test_another_one_is_sent_to_the_gate(clean: World) -> None:
    """The use of the test split and its level are said first; taken back, nothing happens; else a new optimization."""
    tab = clean.front(clean.ended)
    before = clean.service.client.get("/api/v1/optimizations").json()["items"]
    candidate = tab.value(f"{SEND}.find((one) => !one.disabled).dataset.send")
    look = clean.service.client.get(f"/api/v1/optimizations/{clean.ended}/pick", params={"candidate": candidate}).json()
    click = f"{SEND}.find((one) => !one.disabled).click()"

    tab.value(click)
    tab.until("Boolean(document.querySelector('dialog[open]'))", "confirmation")
    asked = told(tab, "dialog")
    tab.value("document.querySelector('dialog button[value=no]').click()")
    tab.until(f"!document.querySelector('dialog') && {SEND}.some((one) => !one.disabled)", "taken back")

    assert look["sentence"] in asked
    assert f"use {look['test_split_use']} of the test split" in asked
    assert f"at most {look['calls']:,} calls" in asked
    assert before == clean.service.client.get("/api/v1/optimizations").json()["items"]

    tab.value(click)
    tab.until("Boolean(document.querySelector('dialog[open]'))", "confirmation")
    tab.value("document.querySelector('dialog button[value=yes]').click()")
    tab.until(f"location.pathname.startsWith('/optimizations/') && !location.pathname.includes('{clean.ended}')", "new")
    new = tab.value("location.pathname").rsplit("/", 1)[-1]
    clean.service.until(new, "completed")
    detail = clean.service.client.get(f"/api/v1/optimizations/{new}").json()
    assert {"type": "picked", "candidate": candidate, "optimization": clean.ended} == detail["request"]["policy"]
    use = clean.service.status(new)["results"]["optimization_details"]["test_split_use"]
    assert use in {None, look["test_split_use"]}


def choose(tab: Tab, selector: str, value: str) -> None:
    """Fill a field as a person does."""
    tab.value(
        f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.value = {json.dumps(value)};"
        "one.dispatchEvent(new Event('input', {bubbles: true}));"
        "one.dispatchEvent(new Event('change', {bubbles: true})) })()"
    )


def body(tab: Tab) -> dict[str, Any]:
    """Ask for the estimate and return the body it was asked with, as the form shows it for a shell."""
    tab.value("document.querySelector('#ask').click()")
    tab.until("!document.querySelector('#start').disabled", "estimate")
    text = tab.value("document.querySelector('#copies pre').textContent")
    return dict(json.loads(text[text.index("-d '") + 4 : text.rindex("'")]))


@pytest.fixture
def form(clean: World) -> Callable[[], Tab]:
    """A new optimization with two objectives."""

    def fill() -> Tab:
        dataset = clean.service.client.get(f"/api/v1/optimizations/{clean.ended}").json()["request"]["dataset"]
        tab = clean.open(f"/new?agent=capitals&dataset={dataset}")
        add = "[...document.querySelectorAll('button')].find((one) => one.textContent === 'Add an objective').click()"
        tab.value(add)
        choose(tab, ".objective:nth-child(2) [data-name=metric]", "tokens")
        choose(tab, ".objective:nth-child(2) [data-name=direction]", "minimize")
        return tab

    return fill


@pytest.mark.parametrize(
    ("policy", "fields", "wanted"),
    [
        ("weights", {}, None),
        ("knee", {}, {"type": "knee"}),
        (
            "lexicographic",
            {"#policy-order": "exact_match, tokens", "#policy-tolerance": "0.05"},
            {"type": "lexicographic", "order": ["exact_match", "tokens"], "tolerance": 0.05},
        ),
        (
            "max_cost",
            {"#policy-metric": "tokens", "#policy-at_most": "400"},
            {"type": "max_cost", "metric": "tokens", "at_most": 400},
        ),
        (
            "target_values",
            {".objective [data-name=target_value]": "0.9", "#policy-least": "tokens"},
            {"type": "target_values", "least": "tokens"},
        ),
    ],
)
def test_policies_are_asked_for_with_their_fields(
    form: Callable[[], Tab], policy: str, fields: dict[str, str], wanted: dict[str, Any] | None
) -> None:
    """What the form says is what the API is asked; only the fields of the chosen policy are shown."""
    tab = form()
    choose(tab, "#policy", policy)
    for selector, value in fields.items():
        choose(tab, selector, value)

    shown = tab.value("[...document.querySelectorAll('[data-policy]')].filter((one) => !one.hidden).length")
    sent = body(tab)

    assert (1 if policy in {"lexicographic", "max_cost", "target_values"} else 0) == shown
    assert wanted == sent.get("policy")
    assert set() == {"isolation", "priority"} & set(sent["constraints"])
    assert [("exact_match", None), ("tokens", "minimize")] == [
        (one["metric"], one.get("direction")) for one in sent["objectives"]
    ]


def test_a_policy_that_does_not_fit_is_marked(form: Callable[[], Tab]) -> None:
    """An order that names no objective: at its field, with what is possible."""
    tab = form()
    choose(tab, "#policy", "lexicographic")
    choose(tab, "#policy-order", "latency")
    tab.value("document.querySelector('#ask').click()")
    tab.until("Boolean(document.querySelector('#policy-order[aria-invalid=true]'))", "mark")

    assert "possible: exact_match, tokens" in tab.value(
        "document.querySelector('#policy-order').parentElement.innerText"
    )
    tab.troubles.clear()  # the browser tells of the answer 422


def test_isolation_and_options_of_every_kind_are_asked_for(form: Callable[[], Tab]) -> None:
    """A process of its own; some of a list of choices; a list of mappings as JSON; defaults are not sent."""
    tab = form()
    choose(tab, "#isolation", "process")
    tab.value("document.querySelector('[data-choose=genetic]').click()")
    tab.value("document.querySelector('#genetic-vary [value=instructions]').click()")
    choose(tab, "#genetic-evaluations", "300")
    tab.value("document.querySelector('[data-choose=given]').click()")
    choose(tab, "#given-candidates", json.dumps([showing(1)]))
    tab.value("document.querySelector('[data-choose=racing]').click()")

    sent = body(tab)

    assert "process" == sent["constraints"]["isolation"]
    assert [
        {"genetic": {"evaluations": 300, "vary": ["demos"]}}, {"given": {"candidates": [showing(1)]}}, "racing",
    ] == sent["algorithms"]  # fmt: skip


def test_json_that_is_none_is_marked(form: Callable[[], Tab]) -> None:
    """At the option it was written into."""
    tab = form()
    tab.value("document.querySelector('[data-choose=given]').click()")
    choose(tab, "#given-candidates", "[{")
    tab.value("document.querySelector('#ask').click()")
    tab.until("Boolean(document.querySelector('#given-candidates[aria-invalid=true]'))", "mark")


def test_the_same_is_asked_again_with_its_policy(clean: World) -> None:
    """The form of what ended begins with its objectives, its policy and its options."""
    tab = clean.open(f"/new?from={clean.ended}")
    sent = body(tab)

    assert {"type": "max_cost", "metric": "tokens", "at_most": 160} == sent["policy"]
    assert ["exact_match", "tokens"] == [one["metric"] for one in sent["objectives"]]
    assert 3 == len(sent["algorithms"][0]["given"]["candidates"])


def test_lines_from_two_parents_are_told(clean: World) -> None:
    """The lineage of the page has an edge from each."""
    one = showing(2)
    family = clean.service.client.get(f"/api/v1/optimizations/{clean.ended}/lineage").json()
    parents = [node["id"] for node in family["nodes"]][1:3]
    crossed = clean.service.submitted(
        dataset={"examples": words(120, "front"), "name": "front"},
        objectives=OBJECTIVES,
        algorithms=[{"given": {"candidates": [showing(1), showing(3), {**one, "parents": parents}]}}],
    )
    clean.service.until(crossed, "completed")
    drawn = clean.service.client.get(f"/api/v1/optimizations/{crossed}/lineage").json()
    child = next(node["id"] for node in drawn["nodes"] if node["label"] == "2 demos")
    tab = clean.open(f"/optimizations/{crossed}#candidates")
    tab.until("Boolean(document.querySelector('#panel-candidates canvas'))", "chart")

    assert set(parents) == {edge["from"] for edge in drawn["edges"] if edge["to"] == child}
