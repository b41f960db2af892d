"""Secrets that have to be read back, kept so that whoever reads the database does not read them.

    sealed1.<first characters of the key's digest>.<base64url of nonce, text and tag>

AES-256-GCM under one key of the installation, a fresh nonce each (NIST SP 800-38D), with the place it belongs to as
additional data: moved to another place it cannot be opened. The design asks for envelope encryption; a wrapped key for
each secret would be as long as the secret and protect nothing more, so the secret itself is what is wrapped.
"""

import base64
import binascii
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dspy_optimization.errors import InvalidRequestError

SETTING = "DSPY_OPT_SECRET_KEY"
KEY_BYTES = 32
KEY_FILE = "secret.key"
FORM = "sealed1"
"""What sealed texts begin with."""
_NONCE_BYTES = 12


class SecretBox:
    """Seals and opens under one key. Thread-safe."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise InvalidRequestError(
                f"{SETTING}: wanted: {KEY_BYTES} bytes as base64; found: {len(key)} bytes; possible: openssl rand "
                f"-base64 {KEY_BYTES}"
            )
        self._cipher = AESGCM(key)
        self._name = hashlib.sha256(b"dspy-opt key name" + key).hexdigest()[:12]

    def seal(self, text: str, place: bytes) -> str:
        """Return what may be kept; the same text is never the same twice."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), place)
        return f"{FORM}.{self._name}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str, place: bytes) -> str:
        """Return the text. Raises `InvalidRequestError` for another key, another place, or changed bytes."""
        name = sealed.split(".")[1:2]
        if name != [self._name]:
            raise InvalidRequestError(
                f"{SETTING}: wanted: the key it was sealed with, of the name {''.join(name)}; found: the one of the "
                f"name {self._name}; possible: set the earlier key again, or add the webhook anew"
            )
        try:
            content = base64.b64decode(sealed.rpartition(".")[2], altchars=b"-_", validate=True)
            return self._cipher.decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], place).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise InvalidRequestError(
                "wanted: a secret as it was sealed for this place; found: one that was changed or moved; possible: add "
                "the webhook anew"
            ) from error


def is_sealed(text: str) -> bool:
    """Say whether this was sealed, under whatever key."""
    return text.startswith(f"{FORM}.")


def key_of_text(text: str) -> bytes:
    """Return the key that a setting holds. Raises `ValueError` for what is none, without repeating it."""
    try:
        key = base64.b64decode(text.strip().encode(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"wanted {KEY_BYTES} bytes as base64, such as openssl rand -base64 {KEY_BYTES} prints; found something else"
        )
    return key


def key_in(folder: Path) -> bytes:
    """Return the key of a data folder, made when there is none; only the owner of the file can read it.

    Any number of processes may do so at once and get the same one. Raises `InvalidRequestError` when the file is open
    to others, or holds no key.
    """
    path = folder / KEY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise InvalidRequestError(
                f"wanted: a key that only its owner can read; found: {path}, open to others; possible: chmod 600 {path}"
            )
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"wanted: a key at {path}, made when it is missing; found: {error}; possible: a data folder that can be "
            f"written, or {SETTING}"
        ) from error
    try:
        return key_of_text(text)
    except ValueError as error:
        raise InvalidRequestError(
            f"{path}: {error}; possible: the file as it was, or another name for it, which makes a new key: secrets "
            "under the old one are lost"
        ) from error


def _make(path: Path) -> None:
    """Write a new key, whole or not at all; who is second leaves the first one's."""
    part = path.with_name(f".{KEY_FILE}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink()
