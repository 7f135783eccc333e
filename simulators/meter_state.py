"""What a meter must not forget when the power fails: one value, to and from JSON bytes."""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from schemas.wire import Relay

# IEC practice for 15-minute registers: the longest outage that must be bridged is 45 days.
BUFFER_ROWS = 4_320
# Rows that the server has, kept a while for `resend`: two days of quarter hours.
ARCHIVE_ROWS = 192


class Row(NamedTuple):
    """One buffered reading."""

    boot: int
    seq: int
    ts_ms: int
    wh: int
    relay: Relay


@dataclass(slots=True)
class MeterState:
    """The memory of one meter. `*_load_wh` are values of the household's cumulative load.

    `withheld_load_wh` is what the household would have used while it had no supply;
    `opened_load_wh` is the load as the switch opened, None while it is closed.
    `credit_wh` is what tokens gave as the register stood at `credit_at_wh`; use takes it down.
    `ctr` is the highest command counter seen, `last_ack` the answer given to it.
    """

    boot: int = 0
    seq: int = 0
    alive_ms: int = 0
    last_due_ms: int = 0
    relay: Relay = "closed"
    armed_ms: int = 0
    withheld_load_wh: int = 0
    opened_load_wh: int | None = None
    ctr: int = -1
    last_ack: bytes | None = None
    credit_wh: int | None = None
    credit_at_wh: int = 0
    limit_w: int | None = None
    display: str = ""
    pending: deque[Row] = field(default_factory=lambda: deque(maxlen=BUFFER_ROWS))
    archive: deque[Row] = field(default_factory=lambda: deque(maxlen=ARCHIVE_ROWS))
    # The configuration taken last, and the verification keys that came with it; empty: the plate's.
    cfg_version: int = 0
    command_keys: list[str] = field(default_factory=list)
    # What the token side remembers (key, TIDs), as its own module writes it.
    token_memory: str | None = None


_PLAIN = (
    "boot",
    "seq",
    "alive_ms",
    "last_due_ms",
    "relay",
    "armed_ms",
    "withheld_load_wh",
    "opened_load_wh",
    "ctr",
    "credit_wh",
    "credit_at_wh",
    "limit_w",
    "display",
    "token_memory",
)


def dump(state: MeterState) -> bytes:
    """JSON bytes; the archive is left out, as a power failure may lose what the server has."""
    form: dict[str, object] = {name: getattr(state, name) for name in _PLAIN}
    form["last_ack"] = None if state.last_ack is None else state.last_ack.decode()
    form["cfg"] = [state.cfg_version, *state.command_keys]
    form["pending"] = [list(row) for row in state.pending]
    return orjson.dumps(form)


def load(data: bytes) -> MeterState:
    """The inverse of `dump`. Raises ValueError or KeyError for bytes that `dump` did not make."""
    form = {"credit_at_wh": 0, **orjson.loads(data)}  # states from before it was kept
    state = MeterState(**{name: form[name] for name in _PLAIN})
    state.last_ack = None if form["last_ack"] is None else form["last_ack"].encode()
    # A memory of an earlier release has none.
    state.cfg_version, *state.command_keys = form.get("cfg", [0])
    state.pending.extend(Row(*row) for row in form["pending"])
    return state
