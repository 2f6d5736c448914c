"""Settings of requests, their dispatch and their results."""

from typing import Literal

from router.settings.groups.group import Group
from router.settings.types import Ms, Seconds, Size, Tenants, Texts, setting


class Intake(Group):
    """Requests"""

    allowed_tenants: Tenants = setting(
        (), description="Tenants that this fleet serves, comma-separated; empty: every tenant with a policy."
    )
    strict_correlation: bool = setting(
        False, description="Require UUID or ULID as correlation ids, and run, flow and step ids together."
    )
    legacy_error_codes: bool = setting(False, description="Answer only with error codes that old gateways know.")
    reply_prefixes: Texts = setting(
        (),
        description="Prefixes of the reply subjects that are answered, comma-separated, each with a dot at the end; "
        "also those of `options.result_subject`. Empty: inboxes (`_INBOX.`), and other subjects that are neither the "
        "fleet's nor stored by a stream.",
    )
    deadline_factor: float = setting(
        5.0,
        description="An attempt's deadline is this factor × the provider's expected latency, within the two bounds "
        "below.",
        gt=0,
        le=1000,
    )
    deadline_least_ms: Ms = setting(5_000, description="Shortest deadline that the factor gives.", ge=1)
    deadline_most_ms: Ms = setting(60_000, description="Longest deadline that the factor gives.", ge=1)
    pipeline_deadline_ms: Ms = setting(
        10_000, description="Maximum time that one request spends in its extensions, in total.", ge=10, le=60_000
    )
    pipelines_max: int = setting(
        256,
        description="Requests in extensions at once; further ones are refused with `service_overloaded`.",
        ge=1,
        le=1_000_000,
    )
    deadline_max_ms: Ms = setting(
        1_800_000, description="Longest deadline that a request may ask for.", ge=1, le=86_400_000
    )


class Dispatch(Group):
    """Dispatch and results"""

    assign_subjects: Texts = setting(
        (), description="Additional literal subjects under caf.exec. that stream ASSIGN stores."
    )
    results_by_name: Literal["any", "tenant_subject"] = setting(
        "any",
        description="Where results without an assignment_id are accepted, which name a decision by tenant and id: on "
        "any subject of results, or only on `caf.exec.result.v1.tenant.<tenant>`.",
    )
    result_subject_prefixes: Texts = setting(
        (), description="Prefixes allowed in `options.result_subject`, besides inboxes or ROUTER_REPLY_PREFIXES."
    )
    dispatch: Literal["required", "optional"] = setting(
        "required",
        description="Whether a pod must have its streams to become ready; optional: without them it refuses pushed "
        "tasks only.",
    )
    publish_timeout_s: Seconds = setting(
        15,
        description="How long a message is tried before its publish fails. A work item is not tried after its "
        "deadline either.",
        ge=1,
        le=3600,
    )
    final_keep_s: Seconds = setting(
        600,
        description="How long the final result for an `options.result_subject` is kept for callers who repeat the "
        "request. Later, or with 0, they get it without output, from the record that ROUTER_TOMBSTONE_TTL keeps.",
        ge=0,
        le=86_400,
    )
    final_keep_bytes: Size = setting(
        4_096,
        description="The largest output that is kept with such an end. Above 80 % of Redis' maxmemory no output is "
        "kept.",
        ge=0,
        le=65_536,
    )
    dead_letter_after: int = setting(
        5,
        description="Faults of a message, over all pods and without outages, after which it becomes a dead letter. If "
        "only its task record is unreadable, four times as many, so that a newer pod can handle it.",
        ge=1,
        le=100,
    )
    dead_letter_payloads: bool = setting(False, description="Dead letters hold the payload, not only its hash.")
