"""A meter as one batch finds it, and what the batch says about it."""

from dataclasses import dataclass

from schemas.telemetry import DecodedReading


@dataclass(slots=True)
class BatchMeter:
    """A meter of the batch, and what the batch says about it."""

    id: int
    number: str
    gateway: str | None
    boot: int | None
    seq: int | None
    seq_ms: int | None
    desired_relay: str
    trusted: bool
    accounts: list[int]
    opened: list[int]
    relay: str | None = None
    relay_ms: int | None = None
    online: bool | None = None
    heard: bool = False

    def account_at(self, ts_ms: int) -> int | None:
        """The account that a reading at this instant belongs to: the installation begun last."""
        if not self.accounts:
            return None
        chosen = self.accounts[0]
        for account, opened in zip(self.accounts, self.opened, strict=True):
            if opened < ts_ms:
                chosen = account
        return chosen

    def hear(self, reading: DecodedReading) -> None:
        """Keep the highest counter and the newest measured relay."""
        self.heard = True
        if self.boot is None or (reading.boot, reading.seq) > (self.boot, self.seq or 0):
            self.boot, self.seq, self.seq_ms = reading.boot, reading.seq, reading.ts_ms
        if reading.relay is not None and not reading.hist:
            self.report(reading.relay, reading.ts_ms)

    def report(self, relay: str, at_ms: int) -> None:
        self.heard = True
        if self.relay_ms is None or at_ms >= self.relay_ms:
            self.relay, self.relay_ms = relay, at_ms
