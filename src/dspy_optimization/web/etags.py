"""Entity tags: who has an answer already is told so (304) instead of being sent it again.

A tag stands for the bytes of one answer (RFC 9110, strong). Two ways lead to one: the content itself, where it is cheap
to make, and otherwise everything the content is a function of, so that nothing has to be made to see that it is known.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Depends, Header, Response
from pydantic import BaseModel

from dspy_optimization.events import Json

_HEADER = Annotated[
    str | None, Header(max_length=4000, description="Tags of answers that are at hand; 304 when one of them is it.")
]
UNCHANGED: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"ETag": {"description": "Stands for this answer.", "schema": {"type": "string"}}}},
    304: {"description": "The answer is the one that If-None-Match names"},
}
"""What the documentation says of a route that takes tags."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a client says it has."""

    tags: str | None
    response: Response

    def unchanged(self, tag: str) -> Response | None:
        """Return the answer when the client has this; else let the answer that is being made carry the tag."""
        if matches(self.tags, tag):
            return Response(status_code=304, headers=dict(headers_of(tag)))
        self.response.headers.update(headers_of(tag))
        return None


def known(response: Response, if_none_match: _HEADER = None) -> Known:
    """Return what the client has; a dependency."""
    return Known(if_none_match, response)


Tagged = Annotated[Known, Depends(known)]


def tag_of(*parts: Json) -> str:
    """Return the tag of what is a function of these and of this version of the engine."""
    text = json.dumps([version("dspy-optimization"), *parts], sort_keys=True, separators=(",", ":"))
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def tag_of_content(answer: BaseModel) -> str:
    """Return the tag of an answer that is made already."""
    return tag_of(answer.model_dump(mode="json", by_alias=True))


def headers_of(tag: str) -> Mapping[str, str]:
    """Return what goes with a tag: caches of one client may keep the answer, and ask before they use it."""
    return {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}


def matches(given: str | None, tag: str) -> bool:
    """Say whether a list of tags, as in If-None-Match, holds this one; `*` is any, and W/ does not matter here."""
    if given is None:
        return False
    listed = [one.strip() for one in given.split(",")]
    return "*" in listed or tag in [one.removeprefix("W/") for one in listed]
