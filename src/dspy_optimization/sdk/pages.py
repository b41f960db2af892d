"""Lists of the service, page after page."""

from collections.abc import Iterator, Mapping

from dspy_optimization.errors import InfrastructureError
from dspy_optimization.events import Json
from dspy_optimization.sdk.reading import Answer, read
from dspy_optimization.sdk.transport import Parameters, Transport

PAGE_SIZE = 200
"""The most that the service gives at once."""


def pages(
    transport: Transport, kind: type[Answer], path: str, parameters: Parameters | None = None
) -> Iterator[Answer]:
    """Yield every item of a list; the next page is asked for when it is needed."""
    cursor: str | None = None
    while True:
        page = transport.get(path, {**(parameters or {}), "limit": PAGE_SIZE, "cursor": cursor})
        yield from items(page, kind, path)
        following = page.get("next_cursor") if isinstance(page, Mapping) else None
        if not isinstance(following, str) or not following:
            return
        if following == cursor:
            raise InfrastructureError(
                f"{path}: wanted: another page; found: the cursor of this one again; possible: report it, with the "
                "service's version"
            )
        cursor = following


def items(page: Json, kind: type[Answer], path: str) -> tuple[Answer, ...]:
    """Return the items of one page. Raises `InfrastructureError` when it is none."""
    found = page.get("items") if isinstance(page, dict) else None
    if not isinstance(found, list):
        raise InfrastructureError(
            f"{path}: wanted: items; found: none; possible: a client and a service of the same version"
        )
    return tuple(read(kind, item, f"{path}[{n}]") for n, item in enumerate(found))
