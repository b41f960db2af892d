"""What the sandbox needs."""

import sys
from types import SimpleNamespace

import pytest

from dspy_optimization.adapters.dspy import interpreter
from dspy_optimization.adapters.dspy.interpreter import missing_sandbox


def deno(tmp_path, monkeypatch, text):
    """Put a deno on the path that says this."""
    program = tmp_path / "deno"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(interpreter.importlib.util, "find_spec", lambda name: None)


def test_deno_2_is_enough(tmp_path, monkeypatch):
    """Nothing is missing where Deno 2 stands."""
    deno(tmp_path, monkeypatch, 'echo "deno 2.4.1 (stable)"')

    assert missing_sandbox() is None


@pytest.mark.parametrize(("says", "found"), [('echo "deno 1.40.0"', "found deno 1.40.0"), ("exit 1", "found /")])
def test_another_deno_is_not(tmp_path, monkeypatch, says, found):
    """Other versions, and what is no Deno, are named."""
    deno(tmp_path, monkeypatch, says)

    assert found in missing_sandbox()


def test_no_deno(tmp_path, monkeypatch):
    """Without one the message says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(interpreter.importlib.util, "find_spec", lambda name: None)

    assert "it needs Deno 2 (pip install 'dspy[deno]', or deno on PATH), found none" == missing_sandbox()


def test_a_deno_that_does_not_start(tmp_path, monkeypatch):
    """A broken program is named with its reason."""
    program = tmp_path / "deno"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(interpreter.importlib.util, "find_spec", lambda name: None)

    assert "which does not start" in missing_sandbox()


def test_a_deno_that_hangs(tmp_path, monkeypatch):
    """A program that does not answer is not waited for."""
    deno(tmp_path, monkeypatch, "exec sleep 30")
    monkeypatch.setattr(interpreter, "PROBE_SECONDS", 0.2)

    assert "which does not start" in missing_sandbox()


@pytest.mark.parametrize("broken", [False, True])
def test_the_deno_package_goes_first(tmp_path, monkeypatch, broken):
    """DSPy prefers the binary of the deno package; without its binary the path counts."""
    deno(tmp_path, monkeypatch, 'echo "deno 2.0.0"')

    def find():
        if broken:
            raise FileNotFoundError("no binary")
        return str(tmp_path / "deno")

    monkeypatch.setattr(interpreter.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "deno", SimpleNamespace(find_deno_bin=find))

    assert missing_sandbox() is None
