"""Files a browser may have: what is in `static/`, under an address that changes when any of them does."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MEDIA_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_WORTH_PACKING_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file as it is sent."""

    content: bytes
    packed: bytes | None
    """By gzip; None where that would save nothing."""
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """All files of a folder, read once: what is not in it cannot be asked for."""

    files: Mapping[str, Asset]
    version: str
    """Of the contents of all of them; part of every address, so that browsers may keep them for ever."""

    @classmethod
    def read(cls, folder: Path) -> "Assets":
        """Read every file below the folder whose kind is known."""
        found: dict[str, Asset] = {}
        digest = hashlib.sha256()
        for path in sorted(folder.rglob("*")):
            media_type = MEDIA_TYPES.get(path.suffix)
            if media_type is None or not path.is_file():
                continue
            name, content = path.relative_to(folder).as_posix(), path.read_bytes()
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
            packed = gzip.compress(content, 6, mtime=0) if len(content) >= _WORTH_PACKING_BYTES else None
            found[name] = Asset(content=content, packed=packed, media_type=media_type)
        return cls(files=found, version=digest.hexdigest()[:12])
