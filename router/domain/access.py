"""The parties that use Redis and NATS, for which `router acl` prints the least rights."""

from enum import StrEnum

from router.domain.roles import Role


class Party(StrEnum):
    """One kind of user. The last three are the roles of admin tokens (`domain.roles`), for people and their tools."""

    POD = "pod"
    WORKER = "worker"
    CALLER = "caller"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


HOLDS = {
    Party.POD: "a pod",
    Party.WORKER: "a process that runs assignments, with the library or without",
    Party.CALLER: "an application that asks for decisions, and sends results of what it ran itself",
    Party.VIEWER: "reads: reading commands, reading admin acts over NATS, alerts, dead letters, usage",
    Party.OPERATOR: "a viewer who also pulls levers and sends dead letters again",
    Party.ADMIN: "an operator who also writes policies, purges tenants and runs the selftest",
}

ROLES = {Party.VIEWER: Role.VIEWER, Party.OPERATOR: Role.OPERATOR, Party.ADMIN: Role.ADMIN}

PLACEHOLDER = "CHANGE-ME"
"""A placeholder where an operator writes a password."""
