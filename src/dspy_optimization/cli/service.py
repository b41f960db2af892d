"""What `serve` and `keys` do."""

import ipaddress
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import typer
import uvicorn

from dspy_optimization.adapters.interpreter import give_way, settle
from dspy_optimization.adapters.postgres.key_store import KeyFacts, PostgresKeys, tenant_of
from dspy_optimization.adapters.report.visible import visible
from dspy_optimization.agents.untrusted import closest, shown
from dspy_optimization.bootstrap import open_foundation
from dspy_optimization.cli.logs import configure_logs, quieten_libraries
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.serving import ServiceRole
from dspy_optimization.settings import Settings, read_settings
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole, TenantId
from dspy_optimization.web.app import create_app

_LOCAL = "local"
_GRACE_SECONDS = 5


def log_to(form: str | None) -> None:
    """Write log lines from INFO on, in this form. Raises `InvalidRequestError`."""
    if form not in {None, "json", "text"}:
        raise InvalidRequestError(f"--log: json or text is wanted, found {shown(form)}; possible: json, text")
    configure_logs(logging.INFO, as_json=form == "json" or (form is None and not sys.stderr.isatty()))


def run_service(host: str, port: int, role: str) -> None:
    """Serve until the process is told to end.

    Raises:
        InvalidRequestError: a setting cannot be used, or the service would be open to everybody.
    """
    if role not in set(ServiceRole):
        raise InvalidRequestError(
            f"--role: one of {', '.join(ServiceRole)} is wanted, found {shown(role)}{closest(role, ServiceRole)}; "
            f"possible: {', '.join(ServiceRole)}"
        )
    settings = read_settings()
    _check_open(host, settings)
    if role == ServiceRole.WORKER:
        give_way()
    app = create_app(settings, ServiceRole(role), started=settle)
    quieten_libraries()
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)  # says where it listens
    uvicorn.run(
        app,
        host=host,
        port=port,
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        ws_max_size=64 * 1024,
        server_header=False,
        log_config=None,
    )


def create_key(tenant: str, role: str, name: str, days: float | None) -> str:
    """Return a new key; its tenant is made when it is new."""
    if role not in set(AccessRole):
        raise InvalidRequestError(
            f"--role: one of {', '.join(AccessRole)} is wanted, found {shown(role)}{closest(role, AccessRole)}; "
            f"possible: {', '.join(AccessRole)}"
        )
    try:
        expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    except OverflowError as error:
        raise InvalidRequestError(
            f"--days: at most some thousands are wanted, found {days:g}; possible: 365, or no --days"
        ) from error
    with _keys() as keys:
        owner = _tenant(tenant)
        keys.add_tenant(owner, tenant)
        return keys.create(owner, AccessRole(role), name, expires)


def tell_keys(*, as_json: bool) -> None:
    """Print what is known of every key."""
    with _keys() as keys:
        found = keys.keys()
    now = datetime.now(UTC)
    for one in found:
        state = _state(one, now)
        if as_json:
            told = {"id": one.id, "tenant": str(one.tenant), "role": one.role.value, "name": one.name, "state": state}
            ends = {"expires_at": None if one.expires_at is None else one.expires_at.isoformat()}
            typer.echo(json.dumps({**told, **ends}, ensure_ascii=False))
        else:
            until = "" if one.expires_at is None or state == "revoked" else f"  {_until(one.expires_at, now)}"
            typer.echo(f"{one.id}  {state:8} {one.role.value:14} {one.tenant}  {visible(one.name)}{until}")
    if not found and not as_json:
        typer.echo("No keys yet: dspy-opt keys create makes one.")


def _state(key: KeyFacts, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "valid"


def _until(expires_at: datetime, now: datetime) -> str:
    return f"({'ended' if expires_at <= now else 'until'} {expires_at:%Y-%m-%d %H:%M} UTC)"


def revoke_key(key: str) -> None:
    """End a key at once. Raises `NotFoundError`."""
    with _keys() as keys:
        keys.revoke(key)


def _tenant(name: str) -> TenantId:
    return LOCAL_TENANT if name == _LOCAL else tenant_of(name)


@contextmanager
def _keys() -> Iterator[PostgresKeys]:
    with open_foundation(read_settings(), track=False) as foundation:
        yield PostgresKeys(foundation.database)


def _check_open(host: str, settings: Settings) -> None:
    """Refuse to be open to others without keys: whoever reached it would be its administrator."""
    if settings.service.require_keys or _is_loopback(host):
        return
    raise InvalidRequestError(
        f"--host: wanted: an address of this machine alone, for no keys are required; found: {host}; possible: "
        "--host 127.0.0.1, or DSPY_OPT_REQUIRE_KEYS=yes and dspy-opt keys create"
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
