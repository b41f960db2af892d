"""The archive of an optimized agent: unpacked into its folder, or not at all."""

import io
import stat
import zipfile
from pathlib import Path

import pytest
from sdk_service import ID, Reply, Service

from dspy_optimization.errors import EngineError, InfrastructureError, InvalidRequestError
from dspy_optimization.sdk import Client
from dspy_optimization.sdk import artifact as module

FILES = {"agent/agent.json": b'{"name": "orders"}', "evidence.json": b"{}", "report.html": b"<html>"}


def archive(files: dict[str, bytes], *, mode: int = 0) -> bytes:
    """Return a zip; nothing about it is checked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.filename = name
            entry.external_attr = mode << 16
            opened.writestr(entry, content)
    return buffer.getvalue()


def _fetch(client: Client, service: Service, content: bytes, path: Path) -> Path:
    service.on(f"GET /optimizations/{ID}/artifact", Reply(body=content, media_type="application/zip"))
    return client.optimization(ID).artifact(path)


def _files(folder: Path) -> list[str]:
    return sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file())


@pytest.mark.parametrize("is_there", [True, False])
def test_it_is_unpacked(client: Client, service: Service, tmp_path: Path, is_there: bool) -> None:
    """Into a new folder, or an empty one."""
    folder = tmp_path / "orders"
    if is_there:
        folder.mkdir()

    got = _fetch(client, service, archive({"agent/": b"", **FILES}), folder)

    assert (folder, sorted(FILES)) == (got, _files(folder))
    assert [folder] == list(tmp_path.iterdir())
    assert FILES["agent/agent.json"] == (folder / "agent" / "agent.json").read_bytes()


def test_it_is_kept_as_it_is(client: Client, service: Service, tmp_path: Path) -> None:
    """Where a zip is asked for; checked all the same."""
    content = archive(FILES)

    assert content == _fetch(client, service, content, tmp_path / "orders.zip").read_bytes()
    with pytest.raises(InfrastructureError, match="wanted: paths inside"):
        _fetch(client, service, archive({"../x": b""}), tmp_path / "other.zip")
    assert ["orders.zip"] == _files(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/evil", "..\\evil", "C:/evil", "a/..", "./", "", "agent/x\\y"],
)
def test_nothing_is_written_outside(client: Client, service: Service, tmp_path: Path, name: str) -> None:
    """One such name, and nothing of the archive is written."""
    place = tmp_path / "place"
    place.mkdir()

    with pytest.raises(InfrastructureError, match="artifact: wanted: paths inside the folder"):
        _fetch(client, service, archive({**FILES, name: b"evil"}), place / "orders")

    assert [] == _files(tmp_path)


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o600])
def test_links_are_refused(client: Client, service: Service, tmp_path: Path, mode: int) -> None:
    """A link would lead elsewhere."""
    with pytest.raises(InfrastructureError, match="a link or a device"):
        _fetch(client, service, archive({"agent/link": b"/etc/passwd"}, mode=mode), tmp_path / "orders")
    assert [] == _files(tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_stands_once(client: Client, service: Service, tmp_path: Path) -> None:
    """Also where the file system does not tell capitals apart."""
    with pytest.raises(InfrastructureError, match="each once"):
        _fetch(client, service, archive({"Agent/a": b"", "agent/A": b""}), tmp_path / "orders")


def test_broken_archives(client: Client, service: Service, tmp_path: Path) -> None:
    """No zip, torn, or with bytes turned."""
    whole = archive({"evidence.json": b"0123456789" * 100})
    turned = bytearray(whole)
    turned[45] ^= 0xFF

    for content in (b"<html>", whole[:-30], bytes(turned)):
        with pytest.raises(InfrastructureError, match="artifact: wanted"):
            _fetch(client, service, content, tmp_path / "orders")
    assert [] == _files(tmp_path)


def test_bombs_are_refused(client: Client, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they say they unpack to, before it is unpacked."""
    monkeypatch.setattr(module, "MAX_BYTES", 1000)

    with pytest.raises(InfrastructureError, match="found: more"):
        _fetch(client, service, archive({"evidence.json": b"0" * 1001}), tmp_path / "orders")


def test_nothing_is_overwritten(client: Client, service: Service, tmp_path: Path) -> None:
    """A folder with something in it, a file, a place that does not exist, a file where a folder is to be."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")

    for content, place in (
        (FILES, tmp_path / "full"),
        (FILES, tmp_path / "full" / "mine"),
        (FILES, tmp_path / "missing" / "orders"),
        ({"a": b"", "a/b": b""}, tmp_path / "orders"),
    ):
        with pytest.raises(EngineError, match="wanted: ") as error:
            _fetch(client, service, archive(content), place)
        assert InvalidRequestError is type(error.value)
    assert ["full/mine"] == _files(tmp_path)
