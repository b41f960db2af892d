"""The pages: shells without data, under a policy that lets nothing in, made of files that are all here."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from dspy_optimization.web.access import Public
from dspy_optimization.web.dashboard import pages
from dspy_optimization.web.dashboard.assets import Assets
from loops import run

HOME = Path(pages.__file__).parent
STATIC = HOME / "static"
OWN_SCRIPTS = [path for path in sorted(STATIC.rglob("*.js")) if path.parent.name != "vendor"]
ID = "01900000-0000-7000-8000-0000000000aa"
PAGES = [
    "/", "/optimizations", f"/optimizations/{ID}", "/new", "/schedules", "/agents", "/agents/orders", "/datasets",
    "/datasets/abc", "/models", "/system", "/login", "/docs",
]  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)


def get(path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Ask an application that has the pages and nothing else."""

    async def ask() -> httpx.Response:
        app = FastAPI(docs_url=None, redoc_url=None)
        app.include_router(pages.router)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.get(path, headers=headers or {"accept-encoding": "identity"})

    return run(ask())


@pytest.mark.parametrize("path", PAGES)
def test_pages_answer_under_the_policy(path: str) -> None:
    """Every page comes with the whole policy, and says what it is."""
    response = get(path)

    assert 200 == response.status_code
    assert POLICY == response.headers["content-security-policy"]
    assert "text/html; charset=utf-8" == response.headers["content-type"]
    assert '<html lang="en">' in response.text
    assert 1 == response.text.count("<h1")


@pytest.mark.parametrize("path", PAGES)
def test_pages_hold_nothing_the_policy_would_block(path: str) -> None:
    """No script, style or handler is written into a page."""
    text = get(path).text

    assert [] == re.findall(r"<script(?![^>]*\bsrc=)", text)
    assert [] == re.findall(r"<style|\sstyle=|\son[a-z]+\s*=|javascript:", text)


@pytest.mark.parametrize("path", PAGES)
def test_everything_a_page_names_is_there(path: str) -> None:
    """A file that is missing would be found by a user first."""
    named = re.findall(r'(?:src|href)="(/static/[^"]+)"', get(path).text)

    assert len(named) > 8
    assert [] == [name for name in named if get(name).status_code != 200]


@pytest.mark.parametrize("script", OWN_SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_modules_import_what_is_there(script: Path) -> None:
    """There is no build that would notice."""
    named = re.findall(r'(?:from|import)[ (]"(\.[^"]+)"', script.read_text(encoding="utf-8"))

    assert [] == [name for name in named if not (script.parent / name).resolve().is_file()]


@pytest.mark.parametrize("script", OWN_SCRIPTS, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_scripts_make_no_markup_of_text(script: Path) -> None:
    """What users wrote becomes text nodes only."""
    found = re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|srcdoc",
        script.read_text(encoding="utf-8"),
    )

    assert [] == found


def test_nothing_is_asked_of_other_hosts() -> None:
    """No address but those that name a vocabulary, in anything that is sent to a browser."""
    files = [path for path in [*STATIC.rglob("*"), *(HOME / "templates").rglob("*")] if path.is_file()]
    foreign = {
        path.relative_to(HOME).as_posix(): address
        for path in files
        if path.suffix != ".txt"  # licences
        for address in re.findall(r"https?://[^\s\"'`)]+", path.read_text(encoding="utf-8"))
        if not address.startswith("http://www.w3.org/")
    }

    assert {} == foreign


def test_vendored_files_are_those_that_were_built() -> None:
    """The manifest was written by the build; what lies beside it is the same to the bit."""
    vendor = STATIC / "vendor"
    manifest = json.loads((vendor / "manifest.json").read_text(encoding="utf-8"))
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in vendor.iterdir()}
    hashes.pop("manifest.json")

    assert manifest["sha256"] == hashes
    assert "LICENSE-echarts.txt" in hashes
    wanted = json.loads((HOME / "bundle" / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    assert wanted == {name: manifest["packages"][name] for name in wanted}


def test_the_build_names_no_registry() -> None:
    """Where packages come from is the builder's business."""
    bundle = HOME / "bundle"

    assert ["build.mjs", "echarts.mjs", "package.json"] == sorted(path.name for path in bundle.iterdir())
    assert [] == [path.name for path in bundle.iterdir() if re.search(r"https?://|registry", path.read_text("utf-8"))]


def test_an_unknown_id_is_the_page_of_what_is_missing() -> None:
    """What cannot be an id is 404 at once; a well-formed one is looked up by the page's script."""
    response = get("/optimizations/nonsense")

    assert 404 == response.status_code
    assert 'data-state="missing"' in response.text
    assert POLICY == response.headers["content-security-policy"]


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", '"><script>alert(1)</script>', "{{ 7 * 7 }}"])
@pytest.mark.parametrize("place", ["/agents/", "/datasets/", "/optimizations/"])
def test_names_are_escaped(place: str, name: str) -> None:
    """Whatever is in an address comes out as text."""
    text = get(place + quote(name, safe="")).text

    assert not any(bad in text for bad in ("<img src=x", "<script>alert", ">49<"))


def test_files_may_be_kept_for_ever_under_their_version() -> None:
    """A change of any file is a new address; an old address is not kept."""
    version = Assets.read(STATIC).version
    packed = get(f"/static/{version}/js/dom.js", {"accept-encoding": "gzip"})
    old = get("/static/000000000000/js/dom.js")

    assert "public, max-age=31536000, immutable" == packed.headers["cache-control"]
    assert "gzip" == packed.headers["content-encoding"]
    assert (STATIC / "js/dom.js").read_text(encoding="utf-8") == packed.text
    assert (200, "no-store") == (old.status_code, old.headers["cache-control"])


@pytest.mark.parametrize(
    "name", ["%2e%2e/pages.py", "..%2fpages.py", "js/none.js", "js", "vendor/%2e%2e/%2e%2e/assets.py"]
)
def test_only_files_of_the_folder_are_given(name: str) -> None:
    """Names are looked up, never joined to a path."""
    assert 404 == get(f"/static/x/{name}").status_code


def test_a_change_of_any_file_is_another_version(tmp_path: Path) -> None:
    """Also of a name."""
    (tmp_path / "a.css").write_text("a{}", encoding="utf-8")
    first = Assets.read(tmp_path).version
    (tmp_path / "b.css").write_text("", encoding="utf-8")
    second = Assets.read(tmp_path).version

    assert first != second


def test_pages_are_public_and_no_part_of_the_api() -> None:
    """They hold no data; the API that their scripts ask checks who asks."""
    routes = [route for route in pages.router.routes if isinstance(route, APIRoute)]

    assert len(routes) > 12
    assert all(any(isinstance(one.call, Public) for one in route.dependant.dependencies) for route in routes)
    assert not any(route.include_in_schema for route in routes)
