"""The pages people look at: shells that hold no data. Their scripts ask the public API, as any other client."""

from pathlib import Path
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dspy_optimization.events import Json
from dspy_optimization.web.access import Anybody
from dspy_optimization.web.dashboard.assets import Assets

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "form-action 'self'",
    )
)
"""What a browser may do on a page: nothing with another host, nothing written into the page itself."""

_HERE = Path(__file__).parent
_ASSETS = Assets.read(_HERE / "static")
_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_FOR_EVER = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False, dependencies=[Anybody])


def page(name: str, title: str, *, status: int = 200, **facts: Json) -> HTMLResponse:
    """Return a page; whatever is put into it is escaped."""
    text = _TEMPLATES.get_template(f"{name}.html").render(
        page=name, title=title, static=f"/static/{_ASSETS.version}", **facts
    )
    return HTMLResponse(
        text, status_code=status, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    )


@router.get("/static/{version}/{name:path}")
def static(request: Request, version: str, name: str) -> Response:
    """Return a file; under an old version it is the present one, and not to be kept."""
    asset = _ASSETS.files.get(name)
    if asset is None:
        return missing("a file of that name")
    headers = {"Cache-Control": _FOR_EVER if version == _ASSETS.version else "no-store", "Vary": "Accept-Encoding"}
    if asset.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.packed, media_type=asset.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(asset.content, media_type=asset.media_type, headers=headers)


@router.get("/favicon.ico")
def icon() -> Response:
    """Return the icon for browsers that do not look into the page."""
    return Response(_ASSETS.files["icon.svg"].content, media_type="image/svg+xml")


@router.get("/")
def overview() -> HTMLResponse:
    """Show what goes on and what came out."""
    return page("overview", "Overview")


@router.get("/optimizations")
def optimizations() -> HTMLResponse:
    """List optimizations."""
    return page("optimizations", "Optimizations")


@router.get("/optimizations/{optimization_id}")
def optimization(optimization_id: str) -> HTMLResponse:
    """Show one optimization."""
    try:
        known = UUID(optimization_id)
    except ValueError:
        return missing(f"an optimization with the id {optimization_id[:80]}")
    return page("optimization", "Optimization", subject=str(known))


@router.get("/new")
def new() -> HTMLResponse:
    """Take a new optimization."""
    return page("new", "New optimization")


@router.get("/schedules")
def schedules() -> HTMLResponse:
    """List schedules."""
    return page("schedules", "Schedules")


@router.get("/agents")
def agents() -> HTMLResponse:
    """List agents."""
    return page("agents", "Agents")


@router.get("/agents/{name}")
def agent(name: str) -> HTMLResponse:
    """Show an agent and its versions."""
    return page("agent", name, subject=name)


@router.get("/datasets")
def datasets() -> HTMLResponse:
    """List datasets."""
    return page("datasets", "Datasets")


@router.get("/datasets/{dataset_id}")
def dataset(dataset_id: str) -> HTMLResponse:
    """Show a dataset."""
    return page("dataset", "Dataset", subject=dataset_id)


@router.get("/models")
def models() -> HTMLResponse:
    """List the models."""
    return page("models", "Models")


@router.get("/system")
def system() -> HTMLResponse:
    """Show queue, workers and GPUs."""
    return page("system", "System")


@router.get("/login")
def login() -> HTMLResponse:
    """Take a key."""
    return page("login", "Log in")


@router.get("/docs")
def docs() -> HTMLResponse:
    """Show the documentation of the API."""
    return page("docs", "API")


def missing(what: str) -> HTMLResponse:
    """Return the page that says there is no such thing."""
    return page("missing", "Not found", status=404, what=what)
