"""Who may do what."""

import pytest

from dspy_optimization.tenancy import LOCAL_PRINCIPAL, LOCAL_TENANT, PERMISSIONS, AccessRole, Permission, Principal


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (AccessRole.VIEWER, {Permission.READ}),
        (AccessRole.RESEARCHER, {Permission.READ, Permission.RUN}),
        (AccessRole.ADMINISTRATOR, {Permission.READ, Permission.RUN, Permission.ADMINISTER}),
    ],
)
def test_a_role_allows_what_it_says(role: AccessRole, may: set[Permission]) -> None:
    """Nobody but an administrator touches what concerns other tenants."""
    principal = Principal(tenant=LOCAL_TENANT, name="ci", role=role)

    assert may == {permission for permission in Permission if principal.may(permission)}


def test_every_role_is_decided_on() -> None:
    """A new role or permission needs its line."""
    assert set(AccessRole) == set(PERMISSIONS)
    assert set(Permission) == set().union(*PERMISSIONS.values())


def test_without_keys_whoever_reaches_it_is_the_local_administrator() -> None:
    """One tenant, every permission."""
    assert (LOCAL_TENANT, AccessRole.ADMINISTRATOR) == (LOCAL_PRINCIPAL.tenant, LOCAL_PRINCIPAL.role)
