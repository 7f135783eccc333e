"""What the gateway counts, for Prometheus and for the live view."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from store.incoming import Incoming, Recorded

# From a fraction of a millisecond to a minute: publish to committed debit.
LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
# From seconds to a working day: payment received to supply reported on.
RECONNECTION_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 28800)
# Of a large batch so many messages tell their latency: each costs as much as its validation.
LATENCIES_A_BATCH = 100
BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000)


class GatewayMetrics:
    """Counters of one gateway process, in a registry of its own."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self.messages_committed = 0
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
        self.messages_behind = Counter(
            "prepaid_messages_behind",
            "Of them, those that had waited at the broker beside what comes now",
            registry=self.registry,
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
        self.commit = Histogram(
            "prepaid_commit_seconds",
            "One batch in the database, with the waiting while that is away",
            buckets=LATENCY_S,
            registry=self.registry,
        )
        self.lag = Histogram(
            "prepaid_ingest_lag_seconds",
            "From the arrival of a batch's oldest message at this worker to its commit",
            buckets=LATENCY_S,
            registry=self.registry,
        )
        self.reconnection = Histogram(
            "prepaid_reconnection_seconds",
            "From a payment that found the supply off to the meter's report that it is on",
            buckets=RECONNECTION_S,
            registry=self.registry,
        )
        self._waiting()

    def _waiting(self) -> None:
        """What waits to be sent, or for a person."""
        self.outbox = Gauge(
            "prepaid_outbox_commands", "Commands that wait to be sent", registry=self.registry
        )
        self.outbox_age = Gauge(
            "prepaid_outbox_oldest_seconds",
            "Age of the oldest of them, on the system's clock; 0 where none waits",
            registry=self.registry,
        )
        self.brakes = Gauge(
            "prepaid_brakes_pulled",
            "Centres in which cuts wait for a person",
            registry=self.registry,
        )
        self.dead_letters = Gauge(
            "prepaid_dead_letters_open",
            "Commands that were given up and that nobody has looked at",
            registry=self.registry,
        )
        self.credit_exceptions = Gauge(
            "prepaid_credit_exceptions_open",
            "Meters whose own credit and tokens do not agree",
            registry=self.registry,
        )

    def committed(self, recorded: Recorded, messages: Sequence[Incoming], now_ms: int) -> None:
        """Count one committed batch; latency in real seconds, also when the clock runs fast."""
        self.messages_committed += len(messages)
        self.messages.inc(len(messages))
        self.batch.observe(len(messages))
        self.readings.labels("accepted").inc(recorded.accepted)
        self.readings.labels("duplicate").inc(recorded.duplicate)
        self.readings.labels("quarantined").inc(recorded.quarantined)
        self.commands.inc(recorded.commands)
        for took_ms in recorded.reconnections_ms:
            self.reconnection.observe(max(0, took_ms) / 1000 / self._speed)
        for message in messages[:: len(messages) // LATENCIES_A_BATCH + 1]:
            readings = message.decoded.readings
            if readings and not readings[0].hist:
                age_ms = max(0, now_ms - readings[0].ts_ms)
                self.latency.observe(age_ms / 1000 / self._speed)
