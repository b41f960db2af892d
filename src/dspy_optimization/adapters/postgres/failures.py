"""What went wrong with the database, in words that help and never show a password."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from psycopg import errors
from sqlalchemy import exc

from dspy_optimization.errors import InvalidRequestError, StoreError

DRIVER = "postgresql+psycopg"
SCHEMES = ("postgresql", "postgres", DRIVER)
SHAPE = "postgresql://user:password@host:5432/database"


def parse_url(url: str) -> sa.URL:
    """Return the URL for psycopg. Raises `InvalidRequestError` when it is none, without repeating it."""
    wanted = f"wanted: a database URL like {SHAPE}"
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in SCHEMES:
        shown = f"one that begins with {scheme!r}" if scheme.replace("+", "").isalnum() else "text without a scheme"
        raise InvalidRequestError(
            f"{wanted}; found: {shown}; possible: {', '.join(SCHEMES)}, or no DATABASE_URL at all"
        )
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise InvalidRequestError(
            f"{wanted}; found: a URL that cannot be read; possible: write special characters of the password in percent"
            " form (@ is %40, / is %2F)"
        ) from error
    if not parsed.database:
        raise InvalidRequestError(f"{wanted}; found: no database name; possible: end the URL with /name")
    return parsed.set(drivername=DRIVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the database is, fit to be shown."""

    shown: str
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, url: sa.URL) -> "Address":
        """Return what may be shown of a URL, and what may not."""
        host = url.host or url.query.get("host") or "the local socket"
        place = f"{url.username or ''}@{host if isinstance(host, str) else ','.join(host)}"
        hidden = [url.query.get("password"), url.query.get("sslpassword"), url.password]
        return cls(
            shown=f"{place}{f':{url.port}' if url.port else ''}/{url.database}",
            secrets=tuple(str(secret) for secret in hidden if secret),
        )

    def clean(self, error: BaseException) -> str:
        """Return what the error says, on one line and without secrets."""
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn errors of the driver into `StoreError`; everything else passes."""
        try:
            yield
        except exc.DBAPIError as error:
            if error.connection_invalidated or isinstance(error, exc.OperationalError | exc.InterfaceError):
                raise StoreError(
                    f"the database at {self.shown} is away: {self.clean(error)}; bring it back, then resume"
                ) from error
            raise StoreError(f"the database at {self.shown} refuses: {self.clean(error)}") from error
        except exc.TimeoutError as error:
            raise StoreError(
                f"no connection to {self.shown} became free: {self.clean(error)};"
                " fewer optimizations at once, then resume"
            ) from error

    @contextmanager
    def guard_start(self) -> Iterator[None]:
        """Turn errors of a first connection into what has to be mended: the URL, the rights or the server."""
        try:
            with self.guard():
                yield
        except StoreError as error:
            cause = error.__cause__.orig if isinstance(error.__cause__, exc.DBAPIError) else None
            mend = _mend(cause, self.clean(cause)) if cause is not None else None
            if mend is None:
                raise
            raise InvalidRequestError(
                f"wanted: the database at {self.shown}; found: {self.clean(error.__cause__ or error)}; possible: {mend}"
            ) from error


def _mend(error: BaseException, said: str) -> str | None:
    """Return what a person can do about a refused start; None when it may pass by itself."""
    state = getattr(error, "sqlstate", None)
    if state in {"28P01", "28000"} or "authentication failed" in said or "no password supplied" in said:
        return "another user or password in DATABASE_URL"
    if state == "3D000" or ("database" in said and "does not exist" in said):
        return "create that database, another name in DATABASE_URL"
    if "role" in said and "does not exist" in said:
        return "another user in DATABASE_URL"
    if "resolve" in said or "translate host name" in said:
        return "another host in DATABASE_URL"
    if "refused" in said or "No such file" in said or "timeout expired" in said:
        return "start the server there, another host or port in DATABASE_URL"
    if isinstance(error, errors.InsufficientPrivilege):
        return (
            "a user in DATABASE_URL that may create roles and tables; or let an administrator run: CREATE ROLE"
            " dspy_opt_app NOLOGIN; GRANT dspy_opt_app TO that user; GRANT CREATE ON SCHEMA public TO that user"
        )
    return None
