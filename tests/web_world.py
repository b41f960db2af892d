"""A service with keys of every role, and how to ask it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.tenancy import TenantId
from service_world import Service

OTHER = TenantId(uuid4())
RETENTION_DAYS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """The service, its database, and who may ask."""

    service: Service
    database: Database
    url: str
    keys: Mapping[str, str]

    def ask(self, path: str, who: str = "researcher", method: str = "GET", **content: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys[who]}", **content.pop("headers", {})}
        return self.service.client.request(method, path, headers=headers, **content)
