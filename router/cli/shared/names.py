"""Options that name a tenant, a policy or a provider.

An impossible name is wrong usage, and is refused before any server is contacted.
"""

from typing import Annotated

import typer

NO_TENANTS_LOG = "~"


def _id(what: str, *, name: str | None) -> str | None:
    """The name; None stays what it is.

    :raises typer.BadParameter: no request may carry this name.
    """
    from router.errors import InvalidInput
    from router.usecases.policies.publish import check_ids

    try:
        if name is not None:
            check_ids(name)
    except InvalidInput as wrong:
        raise _refused(name or "", wanted=f"a {what} name: {wrong.problems[0].hint}") from wrong
    return name


def tenant_name(name: str | None) -> str | None:
    """The callback of an option that names a tenant."""
    return _id("tenant", name=name)


def tenant_in_subjects(name: str | None) -> str | None:
    """The callback of an option for a tenant whose name becomes part of a subject."""
    from router.wire.subjects import is_literal

    if tenant_name(name) is not None and not is_literal(str(name)):
        raise _refused(str(name), wanted="part of a subject: it starts or ends with a dot, or has two in a row")
    return name


def _log(name: str) -> str | None:
    return name if name == NO_TENANTS_LOG else _id("tenant", name=name)


def _policy(name: str | None) -> str | None:
    return _id("policy", name=name)


def _provider(name: str) -> str:
    """The name.

    :raises typer.BadParameter: no policy may contain this name.
    """
    import re

    from router.domain.policy.fields import PROVIDER_NAME

    if re.fullmatch(PROVIDER_NAME.pattern, name) is None:
        raise _refused(name, wanted=PROVIDER_NAME.what)
    return name


def _refused(name: str, *, wanted: str) -> typer.BadParameter:
    shown = name if len(name) <= 64 else name[:61] + "..."
    return typer.BadParameter(f"{shown!r} is not {wanted}")


TenantOption = Annotated[str, typer.Option("--tenant", help="The tenant.", callback=tenant_name)]
OnlyTenantOption = Annotated[str | None, typer.Option("--tenant", help="Only this tenant.", callback=tenant_name)]
LogOption = Annotated[
    str, typer.Option("--tenant", help="The tenant; ~ is the log of no tenant (see `query`).", callback=_log)
]
TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", callback=tenant_name)]
PolicyOption = Annotated[str, typer.Option("--policy", help="Policy id.", callback=_policy)]
AskedPolicyOption = Annotated[
    str | None, typer.Option("--policy", help="Policy id; without it the tenant's `default`.", callback=_policy)
]
ProviderArgument = Annotated[
    str, typer.Argument(metavar="PROVIDER", help="Name, as the tenant's policies have it.", callback=_provider)
]
