"""What the environment and the configuration file say, read once at the start; others get values."""

from dspy_optimization.settings.passing import settings_from_json, settings_to_json
from dspy_optimization.settings.reading import ServiceSettings, Settings, default_data_directory, read_settings

__all__ = [
    "ServiceSettings",
    "Settings",
    "default_data_directory",
    "read_settings",
    "settings_from_json",
    "settings_to_json",
]
