"""Server-sent events as they stand in a stream of bytes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSent:
    """One event."""

    type: str
    data: str
    id: str
    """The last id that the stream gave; empty: it gave none."""


def server_sent(chunks: Iterable[bytes]) -> Iterator[ServerSent]:
    """Yield the events of a stream; comments and events without data are passed over.

    Source: WHATWG HTML, 9.2.6. Only line feeds (with or without a carriage return before) end a line here, so that
    the other characters that end lines for Python stay text.
    """
    type_, data, id_ = "", list[str](), ""
    for line in _lines(chunks):
        if not line:
            if data:
                yield ServerSent(type=type_ or "message", data="\n".join(data), id=id_)
            type_, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                type_ = value
            case "data":
                data.append(value)
            case "id":
                id_ = value
            case _:
                pass


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
