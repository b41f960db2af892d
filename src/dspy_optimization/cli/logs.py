"""Where log lines go: to standard error, never among what a command prints."""

import logging
import sys

import structlog


class _CurrentStandardError(logging.Handler):
    """Writes to whatever `sys.stderr` is at that moment: the live panel puts itself there."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")


def configure_logs(level: int) -> None:
    """Send structlog and the standard library's loggers to standard error, from this level on.

    Libraries of others speak from ERROR on, unless everything is asked for.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _CurrentStandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()), foreign_pre_chain=shared
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level if level <= logging.DEBUG else logging.ERROR)
    logging.getLogger("dspy_optimization").setLevel(level)


def quieten_libraries() -> None:
    """Make libraries that bring handlers of their own speak through ours; call it once they are imported."""
    for name in ("dspy", "LiteLLM", "litellm", "mlflow", "alembic", "httpx"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(logging.getLogger().level)
