"""Metrics of NATS: publishes, streams, consumers, the connection."""

from router.telemetry.families import Families


class BusMetrics:
    """Read from `bus` by the pod's observers."""

    def _bus(self, families: Families) -> None:
        self.publishes = families.totals(
            "publishes",
            documentation="JetStream publishes: stored, duplicate, failed, resent, or core (the subject has no "
            "stream).",
            labels=("outcome",),
        )
        self.stream_differences = families.gauge(
            "stream_differences",
            documentation="Differences of streams and consumers from the settings; the log lists them.",
        )
        self.redeliveries = families.totals(
            "redeliveries", documentation="Messages delivered more than once.", labels=("stream",)
        )
        self.consumer_stalls = families.totals(
            "consumer_stalls", documentation="Pull loops that the watchdog restarted.", labels=("stream",)
        )
        self.consumers_paused = families.gauge(
            "consumers_paused", documentation="1 while consumers are paused because the store is unavailable."
        )
        self.consumer_lag = families.gauge(
            "consumer_lag",
            documentation="Messages in the stream that no pod has received yet; while this pod pauses, also those "
            "without an ack.",
            labels=("stream",),
        )
        self.nats_connected = families.gauge("nats_connected", documentation="1 while the pod is connected to NATS.")
        self.nats_permissions_lost = families.gauge(
            "nats_permissions_lost",
            documentation="NATS subjects that the pod needs and is refused now; /readyz names them.",
        )
        self.nats_rtt = families.gauge("nats_rtt_seconds", documentation="Last round trip to the NATS server.")
        self.nats_connects = families.totals("nats_connects", documentation="Connections to NATS, including the first.")
        self.nats_dropped = families.totals(
            "nats_dropped", documentation="Messages dropped because a subscription was full."
        )
