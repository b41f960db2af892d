"""Settings on their way to a child process: as they are here, however this process came by them."""

from pydantic import TypeAdapter

from dspy_optimization.events import Json
from dspy_optimization.settings.reading import Settings


def settings_to_json(settings: Settings) -> Json:
    """Return the settings with their keys and passwords: for a pipe, never for a file, a log or a command line."""
    document: Json = TypeAdapter(Settings).dump_python(settings, mode="json")
    return document


def settings_from_json(document: Json) -> Settings:
    """Return the settings that `settings_to_json` wrote."""
    return TypeAdapter(Settings).validate_python(document)
