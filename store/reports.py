"""What devices report beside readings: births, wills, events, their clocks; of one batch.

A meter speaks for itself; a gateway for itself and, by naming them, for the meters behind it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson
from psycopg import Connection

from schemas.errors import DomainError
from schemas.quantities import format_instant, parse_instant_ms
from schemas.telemetry import Event, Hello
from store import clocks, flags
from store.clocks import Measure
from store.devices import BatchMeter, FlagKind
from store.flags import Raised
from store.sql import query


class _Report(NamedTuple):
    meter_id: int | None
    gateway: str | None
    kind: str
    body: str
    fingerprint: bytes


@dataclass(slots=True)
class _GatewayWord:
    online: bool | None = None
    spoke: bool = False


@dataclass(slots=True)
class Reports:
    """Collects what the messages of one batch report; `write` keeps it, after the readings."""

    now_ms: int
    _raised: list[Raised] = field(default_factory=list)
    _events: list[_Report] = field(default_factory=list)
    _hellos: list[int] = field(default_factory=list)
    _power: dict[int, int | None] = field(default_factory=dict)
    _measures: list[Measure] = field(default_factory=list)
    _gateways: dict[str, _GatewayWord] = field(default_factory=dict)
    _known_gateways: dict[str, int] = field(default_factory=dict)

    # --- gateways ---------------------------------------------------------------------------

    def know_gateways(self, conn: Connection, numbers: list[str]) -> None:
        """Look up the gateways that speak in this batch."""
        rows = conn.execute(query("gateways_of_batch"), {"numbers": numbers})
        self._known_gateways = dict(rows.fetchall())

    def gateway_spoke(self, number: str, online: bool | None = None) -> bool:
        """Note a sign of life, or with `online` a state; False for one that nobody registered."""
        if number not in self._known_gateways:
            return False
        word = self._gateways.setdefault(number, _GatewayWord())
        word.online = word.online if online is None else online
        # A last will is the broker's word.
        word.spoke = word.spoke or online is not False
        return True

    def gateway_event(self, number: str, kind: str, payload: bytes) -> None:
        """Keep what a gateway reports of itself."""
        self._keep(None, number, kind, payload)

    # --- meters -----------------------------------------------------------------------------

    def hello(self, meter: BatchMeter, hello: Hello, payload: bytes) -> None:
        """A birth: online, powered, a relay, and perhaps a counter that ran back."""
        meter.heard = meter.online = True
        if hello.relay is not None:
            meter.report(hello.relay, hello.ts_ms)
        self._keep(meter.id, None, "hello", payload)
        self._hellos.append(meter.id)
        self._power[meter.id] = None
        # It names the last count it gave out, so that here an equal one is in order.
        seq = None if hello.seq is None else hello.seq + 1
        kind = meter.ran_back(
            hello.boot, 2**53 if seq is None else seq, hello.ts_ms, replayed=False
        )
        if kind is not None:
            self.suspect(meter, kind, f"A hello of boot {hello.boot}, seq {hello.seq}.")

    def event(self, meter: BatchMeter, event: Event, payload: bytes) -> None:
        """Something happened at a meter; some kinds say how it stands now."""
        meter.heard = True
        self._keep(meter.id, None, event.type, payload)
        if event.type == "power_fail":
            self._power[meter.id] = self.now_ms
        elif event.type == "power_return":
            self._power[meter.id] = None
        elif event.type == "clock_set":
            before, after = _instant(event.info, "before"), _instant(event.info, "after")
            if before is not None and after is not None:
                self._measures.append(Measure(meter.id, "set", "sync", before - after))
                meter.clock = "sync"

    def measure(self, meter: BatchMeter, offset_ms: int) -> None:
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
        self._keep(meter_id, None, kind, orjson.dumps(said))

    # --- the end ----------------------------------------------------------------------------

    def write(self, conn: Connection) -> None:
        """Everything that was collected."""
        self._raised += flags.count_hellos(conn, self._hellos, self.now_ms)
        for new in flags.raise_flags(conn, self._raised, self.now_ms):
            self._notice(new.meter_id, "clone_suspected", {"kind": new.kind, "detail": new.detail})
        clocks.write(conn, self._measures, self.now_ms)
        if self._power:
            meters = sorted(self._power)
            failed = [self._power[meter] for meter in meters]
            conn.execute(query("mark_power"), {"meter_id": meters, "failed_ms": failed})
        if self._events:
            self._write_events(conn)
        if self._gateways:
            of = sorted((self._known_gateways[name], word) for name, word in self._gateways.items())
            conn.execute(
                query("update_gateways"),
                {
                    "now_ms": self.now_ms,
                    "id": [gateway for gateway, _ in of],
                    "online": [word.online for _, word in of],
                    "spoke": [word.spoke for _, word in of],
                },
            )

    def _write_events(self, conn: Connection) -> None:
        events = self._events
        conn.execute(
            query("insert_events"),
            {
                "now_ms": self.now_ms,
                "meter_id": [each.meter_id for each in events],
                "gateway_id": [
                    None if each.gateway is None else self._known_gateways[each.gateway]
                    for each in events
                ],
                "kind": [each.kind for each in events],
                "body": [each.body for each in events],
                "fingerprint": [each.fingerprint for each in events],
            },
        )

    def _keep(self, meter_id: int | None, gateway: str | None, kind: str, payload: bytes) -> None:
        fingerprint = hashlib.sha256(kind.encode() + b"\0" + payload).digest()
        self._events.append(_Report(meter_id, gateway, kind, _as_json(payload), fingerprint))


def _instant(info: Mapping[str, object], name: str) -> int | None:
    value = info.get(name)
    if not isinstance(value, str):
        return None
    try:
        return parse_instant_ms(value)
    except DomainError:
        return None


def _as_json(payload: bytes) -> str:
    """The report as JSON text; what came as CBOR is kept as its hexadecimal digits."""
    try:
        return orjson.dumps(orjson.loads(payload)).decode()
    except orjson.JSONDecodeError:
        return orjson.dumps(payload.hex()).decode()
