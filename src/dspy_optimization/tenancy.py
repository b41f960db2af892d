"""Who a row belongs to, who asks, and what somebody may do."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType
from uuid import UUID

TenantId = NewType("TenantId", UUID)

LOCAL_TENANT = TenantId(UUID("00000000-0000-7000-8000-000000000001"))
"""The one tenant of an engine that nobody else shares; needs no login."""


class Permission(StrEnum):
    """What a request needs; every route names one or says that it is public."""

    READ = "read"  # look at everything of the own tenant
    RUN = "run"  # hand in agents, datasets and optimizations, and steer them
    ADMINISTER = "administer"  # change what concerns every tenant: queues, workers, keys


class AccessRole(StrEnum):
    """What a key may be used for."""

    VIEWER = "viewer"
    RESEARCHER = "researcher"
    ADMINISTRATOR = "administrator"


PERMISSIONS: Mapping[AccessRole, frozenset[Permission]] = {
    AccessRole.VIEWER: frozenset({Permission.READ}),
    AccessRole.RESEARCHER: frozenset({Permission.READ, Permission.RUN}),
    AccessRole.ADMINISTRATOR: frozenset(Permission),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks."""

    tenant: TenantId
    name: str
    role: AccessRole

    def may(self, permission: Permission) -> bool:
        """Say whether this one may."""
        return permission in PERMISSIONS[self.role]


LOCAL_PRINCIPAL = Principal(tenant=LOCAL_TENANT, name="local", role=AccessRole.ADMINISTRATOR)
"""Whoever reaches an engine that asks for no keys."""
