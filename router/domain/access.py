"""The parties that use Redis and NATS, for which `router acl` prints the least rights."""

from enum import StrEnum


class Party(StrEnum):
    """One kind of user."""

    POD = "pod"
    WORKER = "worker"
    CALLER = "caller"
    OPERATOR = "operator"
    COMMAND_LINE = "command-line"


HOLDS = {
    Party.POD: "a pod",
    Party.WORKER: "a process that runs assignments, with the library or without",
    Party.CALLER: "an application that asks for decisions, and sends results of what it ran itself",
    Party.OPERATOR: "a person who looks: admin subjects over NATS, and the reading commands of the command line",
    Party.COMMAND_LINE: "whatever the command line does: policies, levers, purges, redrives, selftest",
}

PLACEHOLDER = "CHANGE-ME"
"""Stands where an operator writes a password."""
