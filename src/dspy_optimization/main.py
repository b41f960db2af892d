"""The service for an ASGI server: `uvicorn src.dspy_optimization.main:app --port 8004`.

`dspy-opt serve` is the same with a role, a port and log lines of its own.
"""

import logging
import sys

from dspy_optimization.adapters.interpreter import SHORT_SECONDS, settle
from dspy_optimization.cli.logs import configure_logs, quieten_libraries
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.settings import read_settings
from dspy_optimization.web.app import create_app

try:
    app = create_app(read_settings(), started=settle)
    sys.setswitchinterval(SHORT_SECONDS)
    configure_logs(logging.INFO, as_json=not sys.stderr.isatty())
    quieten_libraries()
except InvalidRequestError as error:
    sys.exit(f"error: {error}")
