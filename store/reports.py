"""What devices report beside readings: births, wills, events, their clocks; of one batch.

A meter speaks for itself; a gateway for itself and, by naming them, for the meters behind it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from psycopg import Connection

from schemas.errors import DomainError
from schemas.judging import RIGHT_WITHIN_MS, instant_ms
from schemas.quantities import format_instant
from schemas.telemetry import Decoded, DecodedReading, Event, Hello
from store import clocks, events, flags, presence
from store.batch_meter import BatchMeter, FlagKind, Told
from store.clocks import Measure
from store.events import Reported
from store.flags import Raised
from store.presence import Presence
from store.sql import query


@dataclass(slots=True)
class _GatewayWord:
    presence: Presence
    spoke: bool = False


@dataclass(slots=True)
class Reports:
    """Collects what the messages of one batch report; `write` keeps it, after the readings."""

    now_ms: int
    _raised: list[Raised] = field(default_factory=list)
    _events: list[Reported] = field(default_factory=list)
    _hellos: list[int] = field(default_factory=list)
    # By meter the newest word by its own time: when, and whether the supply fails.
    _power: dict[int, tuple[int, bool]] = field(default_factory=dict)
    _measures: list[Measure] = field(default_factory=list)
    _gateways: dict[str, _GatewayWord] = field(default_factory=dict)
    # Their ids, and whether they are called away.
    _known_gateways: dict[str, tuple[int, bool]] = field(default_factory=dict)

    # --- gateways ---------------------------------------------------------------------------

    def know_gateways(self, conn: Connection, numbers: list[str]) -> None:
        """Look up the gateways that speak in this batch."""
        rows = conn.execute(query("gateways_of_batch"), {"numbers": numbers})
        self._known_gateways = {number: (gateway, away) for number, gateway, away in rows}

    def gateway_spoke(self, number: str, online: bool | None = None, *, prompt: bool) -> bool:
        """Note a sign of life, or with `online` a state; False for one that nobody registered."""
        if number not in self._known_gateways:
            return False
        _, away = self._known_gateways[number]
        word = self._gateways.setdefault(number, _GatewayWord(Presence(away)))
        if online is not None:
            word.presence.said(online=online, prompt=prompt)
        elif prompt:
            word.presence.spoke()
        # A last will is the broker's word.
        word.spoke = word.spoke or online is not False
        return True

    def gateway_event(self, number: str, kind: str, payload: bytes) -> None:
        """Keep what a gateway reports of itself."""
        gateway, _ = self._known_gateways[number]
        self._events.append(Reported(None, kind, payload, gateway))

    # --- meters -----------------------------------------------------------------------------

    def take(
        self, meter: BatchMeter, decoded: Decoded, payload: bytes, received_ms: int | None
    ) -> None:
        """What a meter's own message says beside readings; `received_ms` as in Incoming."""
        if decoded.online is not None:
            meter.presence.said(online=decoded.online, prompt=received_ms is not None)
            # A last will is the broker's word, no sign of life.
            meter.heard = meter.heard or decoded.online
        said_ms = decoded.time_request_ms
        if decoded.hello is not None:
            meter.presence.said(online=True, prompt=received_ms is not None)
            self._hello(meter, decoded.hello, payload, received_ms)
            said_ms = decoded.hello.ts_ms
        if decoded.event is not None:
            self.event(meter, decoded.event, payload, received_ms)
        if said_ms is not None and received_ms is not None:
            meter.heard = True
            self._measure(meter, said_ms - received_ms)

    def reading(self, meter: BatchMeter, reading: DecodedReading, received_ms: int) -> None:
        """A live reading from the future measures a clock, too; a late one is only late.

        One of just now shows that a clock that was lost is right again.
        """
        if reading.hist:
            return
        offset_ms = reading.ts_ms - received_ms
        early = offset_ms > RIGHT_WITHIN_MS
        right_again = (
            meter.clock == "lost" and reading.tq != "lost" and clocks.judge(offset_ms) == "sync"
        )
        if early or right_again:
            self._measure(meter, offset_ms)

    def _hello(
        self, meter: BatchMeter, hello: Hello, payload: bytes, received_ms: int | None
    ) -> None:
        """A birth: powered, a relay, and perhaps a counter that ran back."""
        meter.heard = True
        told = Told(hello.ts_ms, received_ms, self.now_ms, sure=hello.tq != "lost")
        if hello.relay is not None:
            meter.report(hello.relay, told)
        self._events.append(Reported(meter.id, "hello", payload))
        self._hellos.append(meter.id)
        self._said_of_power(meter, told, failed=False)
        # It names the last count it gave out, so that here an equal one is in order.
        seq = None if hello.seq is None else hello.seq + 1
        kind = meter.ran_back(
            hello.boot, 2**53 if seq is None else seq, hello.ts_ms, replayed=False
        )
        if kind is not None:
            self.suspect(meter, kind, f"A hello of boot {hello.boot}, seq {hello.seq}.")

    def event(
        self, meter: BatchMeter, event: Event, payload: bytes, received_ms: int | None
    ) -> None:
        """Something happened at a meter; some kinds say how it stands now."""
        meter.heard = True
        self._events.append(Reported(meter.id, event.type, payload))
        if event.type in {"power_fail", "power_return"}:
            told = Told(event.ts_ms, received_ms, self.now_ms)
            self._said_of_power(meter, told, failed=event.type == "power_fail")
        elif event.type == "clock_set":
            before, after = _instant(event.info, "before"), _instant(event.info, "after")
            if before is not None and after is not None:
                self._measures.append(Measure(meter.id, "set", "sync", before - after))
                meter.clock = "sync"

    def _said_of_power(self, meter: BatchMeter, told: Told, *, failed: bool) -> None:
        # A clock that is ahead is no reason to believe nothing later.
        at_ms = min(told.at_ms, self.now_ms)
        newest_ms, fails = self._power.get(meter.id, (at_ms, True))
        if at_ms > newest_ms or (at_ms == newest_ms and fails):
            self._power[meter.id] = at_ms, failed

    def _measure(self, meter: BatchMeter, offset_ms: int) -> None:
        """A device said what time it is; a changed judgement is kept, and an event."""
        judged = clocks.judge(offset_ms)
        if judged == meter.clock:
            return
        meter.clock = judged
        self._measures.append(Measure(meter.id, "measured", judged, offset_ms))
        self._notice(meter.id, f"clock_{judged}", {"offset_ms": offset_ms})

    def suspect(self, meter: BatchMeter, kind: FlagKind, detail: str) -> None:
        """A meter that looks like two; where that is new it is an event, too."""
        self._raised.append(Raised(meter.id, kind, detail))

    def _notice(self, meter_id: int, kind: str, body: Mapping[str, object]) -> None:
        """An event of our own making."""
        said = {"at": format_instant(self.now_ms), **body}
        self._events.append(Reported(meter_id, kind, orjson.dumps(said)))

    # --- the end ----------------------------------------------------------------------------

    def write(self, conn: Connection) -> None:
        """Everything that was collected."""
        self._raised += flags.count_hellos(conn, self._hellos, self.now_ms)
        for new in flags.raise_flags(conn, self._raised, self.now_ms):
            self._notice(new.meter_id, "clone_suspected", {"kind": new.kind, "detail": new.detail})
        clocks.write(conn, self._measures, self.now_ms)
        if self._power:
            power = sorted(self._power.items())
            of_power = {
                "now_ms": self.now_ms,
                "meter_id": [meter for meter, _ in power],
                "at_ms": [at_ms for _, (at_ms, _) in power],
                "failed": [failed for _, (_, failed) in power],
            }
            conn.execute(query("mark_power"), of_power)
        events.write(conn, self._events, self.now_ms)
        if self._gateways:
            words = [self._gateways[name] for name in sorted(self._gateways)]
            of: dict[str, object] = {
                "now_ms": self.now_ms,
                "id": [self._known_gateways[name][0] for name in sorted(self._gateways)],
                "spoke": [word.spoke for word in words],
            }
            of |= presence.columns([word.presence for word in words], self.now_ms)
            conn.execute(query("update_gateways"), of)


def speaks_of_itself(decoded: Decoded) -> bool:
    """Whether a message says anything beside readings and answers."""
    said = (decoded.hello, decoded.event, decoded.online, decoded.time_request_ms)
    return any(each is not None for each in said)


def _instant(info: Mapping[str, object], name: str) -> int | None:
    value = info.get(name)
    if not isinstance(value, str):
        return None
    try:
        return instant_ms(value)
    except DomainError:
        return None
