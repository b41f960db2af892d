"""Who a row belongs to."""

from typing import NewType
from uuid import UUID

TenantId = NewType("TenantId", UUID)

LOCAL_TENANT = TenantId(UUID("00000000-0000-7000-8000-000000000001"))
"""The one tenant of an engine that nobody else shares; needs no login."""
