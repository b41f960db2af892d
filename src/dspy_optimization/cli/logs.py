"""Where log lines go: to standard error, never among what a command prints."""

import logging
import re
import sys

import structlog

_SECRET = re.compile(
    r"dso_[0-9a-f]{12}_[\w-]{32}|whsec_[\w+/=-]+|(?<=[Bb]earer )[\w.~+/-]+=*|\bsk-[\w-]{8,}|(?<=://)[^\s/@]+:[^\s/@]+(?=@)"
)


class _CurrentStandardError(logging.Handler):
    """Writes to whatever `sys.stderr` is at that moment, for the live panel puts itself there; and no secrets.

    The finished line is searched: a key may stand in a traceback, or deep in a fact.
    """

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{_SECRET.sub('[secret]', self.format(record))}\n")


def configure_logs(level: int, *, as_json: bool = False) -> None:
    """Send structlog and the standard library's loggers to standard error, from this level on.

    Libraries of others speak from ERROR on, unless everything is asked for. Keys and passwords are not written.

    Args:
        level: of our own lines.
        as_json: one JSON object a line, for machines.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Plain tracebacks: the rich ones show the values of local variables, among them keys.
    renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    if as_json:
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _CurrentStandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([structlog.processors.format_exc_info] if as_json else []),
                renderer,
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level if level <= logging.DEBUG else logging.ERROR)
    logging.getLogger("dspy_optimization").setLevel(level)


def quieten_libraries() -> None:
    """Make libraries that bring handlers of their own speak through ours; call it once they are imported."""
    for name in ("dspy", "LiteLLM", "litellm", "mlflow", "alembic", "httpx", "dbos"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(logging.getLogger().level)
