"""What is sealed is read by who has the key, at its place, unchanged, and by nobody else."""

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.adapters.sealing import KEY_BYTES, KEY_FILE, SecretBox, is_sealed, key_in, key_of_text
from dspy_optimization.errors import InvalidRequestError

KEY = bytes(range(KEY_BYTES))
BOX = SecretBox(KEY)


@given(st.text(), st.binary(max_size=64))
def test_what_was_sealed_is_opened(text: str, place: bytes) -> None:
    """Whatever it is; and it is known to be sealed."""
    sealed = BOX.seal(text, place)

    assert text == SecretBox(KEY).open(sealed, place)
    assert is_sealed(sealed)
    assert sealed != BOX.seal(text, place)


def test_it_is_aes_gcm_with_the_place_as_additional_data() -> None:
    """Opened by the library alone: nonce of 12 bytes, then text and tag."""
    form, _, content = BOX.seal("whsec_x", b"place").split(".")
    raw = base64.urlsafe_b64decode(content)

    assert "sealed1" == form
    assert b"whsec_x" == AESGCM(KEY).decrypt(raw[:12], raw[12:], b"place")


@pytest.mark.parametrize("place", [b"", b"plac", b"place2"])
def test_another_place_opens_nothing(place: bytes) -> None:
    """A secret moved to another webhook or tenant is none."""
    with pytest.raises(InvalidRequestError, match="changed or moved"):
        BOX.open(BOX.seal("x", b"place"), place)


def test_changed_bytes_open_nothing() -> None:
    """Any of them, cut short, or no base64."""
    form, name, content = BOX.seal("secret", b"").split(".")
    raw = bytearray(base64.urlsafe_b64decode(content))
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(InvalidRequestError, match="changed or moved"):
            BOX.open(f"{form}.{name}.{base64.urlsafe_b64encode(changed).decode()}", b"")
    for text in ("", "x", "!", content[:8]):
        with pytest.raises(InvalidRequestError, match="changed or moved"):
            BOX.open(f"{form}.{name}.{text}", b"")


def test_another_key_is_named_and_not_shown() -> None:
    """Which one it was sealed with, by a name that says nothing of it."""
    other = SecretBox(bytes(KEY_BYTES))
    with pytest.raises(InvalidRequestError, match=r"wanted: the key it was sealed .* name [0-9a-f]{12}; found"):
        other.open(BOX.seal("x", b""), b"")


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_has_its_length(length: int) -> None:
    """256 bits."""
    with pytest.raises(InvalidRequestError, match="wanted: 32 bytes"):
        SecretBox(bytes(length))


@pytest.mark.parametrize("text", ["", "x", "canary", base64.b64encode(bytes(31)).decode(), "é" * 44])
def test_what_is_no_key_is_not_repeated(text: str) -> None:
    """It may be one that was cut off."""
    with pytest.raises(ValueError, match="wanted 32 bytes as base64") as caught:
        key_of_text(text)

    assert "canary" not in str(caught.value)


def test_a_folder_has_one_key(tmp_path: Path) -> None:
    """Made once, by however many at once; only its owner can read it; nothing else is left over."""
    folder = tmp_path / "new" / "data"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(key_in, [folder] * 8))

    assert 1 == len(keys)
    assert KEY_BYTES == len(keys.pop())
    assert [KEY_FILE] == [one.name for one in folder.iterdir()]
    assert 0o600 == (folder / KEY_FILE).stat().st_mode & 0o777


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """As ssh does; it says what to do."""
    key_in(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(InvalidRequestError, match="possible: chmod 600"):
        key_in(tmp_path)


@pytest.mark.parametrize("content", [b"", b"canary", b"\xff\xfe"])
def test_a_broken_key_file_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    """A new key would lose what is kept under the old one."""
    path = tmp_path / KEY_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InvalidRequestError, match="wanted"):
        key_in(tmp_path)

    assert content == path.read_bytes()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """With the setting that does without it."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidRequestError, match="or DSPY_OPT_SECRET_KEY"):
        key_in(tmp_path / "file")
