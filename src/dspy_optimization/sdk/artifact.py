"""The zip of an optimized agent: looked through before anything of it is written, never written beside its folder."""

import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from dspy_optimization.errors import InfrastructureError, InvalidRequestError

MAX_FILES = 10_000
MAX_BYTES = 1 << 30
"""Of everything, unpacked."""


def check(archive: Path) -> None:
    """Return when every file in the archive is whole and stays in its folder.

    Raises:
        InfrastructureError: it is no zip, broken, too large, or names a place outside; says which.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            _check_entries(opened.infolist())
            broken = opened.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise _unusable("a zip that can be read", str(error)) from error
    if broken is not None:
        raise _unusable("whole files", f"{broken!r} is broken")


def unpack(archive: Path, folder: Path) -> Path:
    """Write the files of a checked archive into a new folder, wholly or not at all; returns the folder.

    Raises:
        InvalidRequestError: the folder holds something already, or cannot be written.
        InfrastructureError: as `check`.
    """
    check(archive)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidRequestError(f"{folder}: wanted: an empty folder or none; found: files; possible: another path")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.absolute().parent) as beside:
            fresh = Path(beside) / "unpacked"
            fresh.mkdir()
            with zipfile.ZipFile(archive) as opened:
                for entry in opened.infolist():
                    _write(opened, entry, fresh)
            if folder.exists():
                folder.rmdir()
            return fresh.replace(folder)
    except OSError as error:
        raise InvalidRequestError(
            f"{folder}: wanted: a folder that can be written; found: {error.strerror}; possible: another path"
        ) from error


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise _unusable(f"at most {MAX_FILES:,} files and {MAX_BYTES:,} bytes", "more")
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        path = PurePosixPath(name)
        mode = entry.external_attr >> 16
        if (
            not path.parts
            or path.is_absolute()
            or ".." in path.parts
            or any(character in name for character in ("\\", ":", "\0"))
            or os.fspath(path).casefold() in seen
        ):
            raise _unusable("paths inside the folder, each once", repr(name))
        if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise _unusable("files and folders", f"{name!r}, which is a link or a device")
        seen.add(os.fspath(path).casefold())


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    path = folder.joinpath(*PurePosixPath(entry.filename).parts)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise _unusable("paths inside the folder", repr(entry.filename))
    if entry.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(entry) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target)


def _unusable(wanted: str, found: str) -> InfrastructureError:
    return InfrastructureError(
        f"artifact: wanted: {wanted}; found: {found}; possible: download it again; nothing of it was written"
    )
