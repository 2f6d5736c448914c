"""Settings of the JetStream streams."""

from router.settings.groups.group import Group
from router.settings.types import Seconds, Size, StreamName, Texts, setting


class Streams(Group):
    """JetStream streams"""

    stream_replicas: int = setting(1, description="Replicas of every stream.", ge=1, le=5)
    stream_assign_name: StreamName = setting("ASSIGN", description="Stream of work items.")
    stream_assign_filter: Texts = setting(
        (),
        description="Subjects that the consumer `workers` delivers, where other consumers take the rest of "
        "ROUTER_ASSIGN_SUBJECTS; empty: all.",
    )
    stream_assign_max_age_s: Seconds | None = setting(
        None,
        description="Maximum age of work items.",
        ge=60,
        default_text="(1h or 2 × ROUTER_DEADLINE_MAX, whichever is longer)",
    )
    stream_assign_dedup_s: Seconds = setting(3_600, description="Dedup window of work items.", ge=1)
    stream_assign_max_bytes: Size | None = setting(
        None, description="Maximum total size of work items; none: unlimited.", ge=1 << 20
    )
    stream_assigned_name: StreamName = setting("ASSIGNED", description="Stream of assigned events.")
    stream_assigned_max_age_s: Seconds = setting(86_400, description="Maximum age of assigned events.", ge=60)
    stream_assigned_dedup_s: Seconds = setting(3_600, description="Dedup window of assigned events.", ge=1)
    stream_assigned_max_bytes: Size | None = setting(
        None, description="Maximum total size of assigned events; none: unlimited.", ge=1 << 20
    )
    stream_ack_name: StreamName = setting("ACK", description="Stream of workers' acks.")
    stream_ack_max_age_s: Seconds = setting(3_600, description="Maximum age of acks.", ge=60)
    stream_ack_max_bytes: Size | None = setting(
        None, description="Maximum total size of acks; none: unlimited.", ge=1 << 20
    )
    stream_result_name: StreamName = setting("RESULT", description="Stream of results.")
    stream_result_max_age_s: Seconds = setting(3_600, description="Maximum age of results.", ge=60)
    stream_result_max_bytes: Size | None = setting(
        None, description="Maximum total size of results; none: unlimited.", ge=1 << 20
    )
    stream_usage_name: StreamName = setting("USAGE", description="Stream of usage events.")
    stream_usage_max_age_s: Seconds = setting(604_800, description="Maximum age of usage events.", ge=60)
    stream_usage_dedup_s: Seconds = setting(
        3_600,
        description="Dedup window of usage events. Usage older than half of it is looked up there before a repeated "
        "publish.",
        ge=60,
    )
    stream_usage_max_bytes: Size | None = setting(
        None, description="Maximum total size of usage events; none: unlimited.", ge=1 << 20
    )
    stream_alert_name: StreamName = setting("ALERT", description="Stream of alerts.")
    stream_alert_max_age_s: Seconds = setting(604_800, description="Maximum age of alerts.", ge=60)
    stream_alert_dedup_s: Seconds = setting(3_600, description="Dedup window of alerts.", ge=1)
    stream_alert_max_bytes: Size | None = setting(
        None, description="Maximum total size of alerts; none: unlimited.", ge=1 << 20
    )
    stream_audit_name: StreamName = setting(
        "AUDIT", description="Stream of exported audit entries; created only if ROUTER_AUDIT_EXPORT_SUBJECT is set."
    )
    stream_audit_max_age_s: Seconds = setting(2_592_000, description="Maximum age of exported audit entries.", ge=60)
    stream_audit_dedup_s: Seconds = setting(3_600, description="Dedup window of exported audit entries.", ge=1)
    stream_audit_max_bytes: Size | None = setting(
        None, description="Maximum total size of exported audit entries; none: unlimited.", ge=1 << 20
    )
    stream_dlq_name: StreamName = setting("DLQ", description="Stream of dead letters.")
    stream_dlq_max_age_s: Seconds = setting(1_209_600, description="Maximum age of dead letters.", ge=60)
    stream_dlq_dedup_s: Seconds = setting(3_600, description="Dedup window of dead letters.", ge=1)
    stream_dlq_max_bytes: Size | None = setting(
        None, description="Maximum total size of dead letters; none: unlimited.", ge=1 << 20
    )
