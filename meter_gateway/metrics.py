"""What the gateway counts, for Prometheus and for the live view."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from store.ingest import Incoming, Recorded

# From a fraction of a millisecond to a minute: publish to committed debit.
LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000)


class GatewayMetrics:
    """Counters of one gateway process, in a registry of its own."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self.registry = CollectorRegistry()
        self.readings = Counter(
            "prepaid_readings",
            "Readings by what became of them",
            ["verdict"],
            registry=self.registry,
        )
        self.messages = Counter(
            "prepaid_messages", "Messages committed and acknowledged", registry=self.registry
        )
        self.commands = Counter(
            "prepaid_commands", "Commands queued by readings", registry=self.registry
        )
        self.database_away = Counter(
            "prepaid_database_away", "Attempts that found no database", registry=self.registry
        )
        self.batch = Histogram(
            "prepaid_batch_messages",
            "Messages per commit",
            buckets=BATCH_SIZES,
            registry=self.registry,
        )
        self.latency = Histogram(
            "prepaid_debit_latency_seconds",
            "From a live reading's instant to its committed debit",
            buckets=LATENCY_S,
            registry=self.registry,
        )

    def committed(self, recorded: Recorded, messages: Sequence[Incoming], now_ms: int) -> None:
        """Count one committed batch; latency in real seconds, also when the clock runs fast."""
        self.messages.inc(len(messages))
        self.batch.observe(len(messages))
        self.readings.labels("accepted").inc(recorded.accepted)
        self.readings.labels("duplicate").inc(recorded.duplicate)
        self.readings.labels("quarantined").inc(recorded.quarantined)
        self.commands.inc(recorded.commands)
        for message in messages:
            readings = message.decoded.readings
            if readings and not readings[0].hist:
                age_ms = max(0, now_ms - readings[0].ts_ms)
                self.latency.observe(age_ms / 1000 / self._speed)
