"""One payment meter as a state machine: instants and messages in, publications out.

The register is `opening_wh` plus the household's load less what was withheld while there was no
supply, so it never falls and does not depend on when it is read. Every reading is buffered until a
`dn/receipt` covers its (boot, seq); a PUBACK frees nothing. After a connection: hello, the newest
reading, then the buffer oldest first with `hist: true`. Commands follow their counter: the same
`ctr` gets the stored answer again, a lower one is refused as stale, a late one fails as expired.
A meter that holds verification keys obeys only what one of them signed for it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from schemas.commands import (
    TOKEN_SUCCESSES,
    Command,
    CommandError,
    encode,
    parse_receipt,
    parse_signed_command,
)
from schemas.configuration import parse_configuration
from schemas.errors import DomainError
from schemas.identity import ACTIVE_IMPORT
from schemas.quantities import format_instant
from schemas.signing import VerificationKey, verify_command
from schemas.topics import Kind, Side
from schemas.wire import AckState, Relay, TokenOutcome
from simulators.meter_state import MeterState, Row

MODEL = "SIM-1P"
FIRMWARE = "1.0"
# A receipt is asked for with every fourth reading, and with every one while a receipt is overdue.
RECEIPT_EVERY = 4
# 16 rows of about 150 bytes stay well under a meter's 4 KiB message limit.
ROWS_PER_MESSAGE = 16
# How long a householder takes to walk to an armed meter and press its button.
BUTTON_DELAY_MS = 2 * 60 * 1000
# A buffered row that the server was sent but never confirmed is sent again after this long.
RETRY_MS = 60 * 60 * 1000
MS_PER_HOUR = 3_600_000


class Publish(NamedTuple):
    """One message on the meter's `up/{kind}`."""

    kind: Kind
    payload: bytes


class Load(Protocol):
    """The household behind the meter."""

    def energy_wh(self, ms: int) -> int: ...


class TokenEntry(NamedTuple):
    """What the meter made of one token: outcome, effects, and the memory to keep."""

    outcome: TokenOutcome
    memory: str | None
    credited_wh: int = 0
    clears_credit: bool = False
    limit_w: int | None = None


# (memory, the 20 digits) -> entry. Pure, like the rest of the meter.
EnterToken = Callable[[str | None, str], TokenEntry]


@dataclass(frozen=True, slots=True)
class Nameplate:
    """What never changes: number, where the register started, when and how often it reads.

    Readings are taken at instants of `phase_ms + k * interval_ms`. `command_keys` are those that it
    left the factory with; without any it obeys whoever can publish to it.
    """

    meter: str
    opening_wh: int
    interval_ms: int
    phase_ms: int
    command_keys: tuple[VerificationKey, ...] = ()


class Meter:
    """Drive it with `power_up`, then `tick`, `receive`, `connected`, `disconnected`."""

    side: Side = "m"

    def __init__(
        self, plate: Nameplate, load: Load, state: MeterState, enter_token: EnterToken | None = None
    ) -> None:
        self.plate = plate
        self.state = state
        self._load = load
        self._enter_token = enter_token
        self._online = False
        self._replayed_ms = 0
        self._acts: dict[str, Callable[[int, Command], list[Publish]]] = {
            "relay": self._switch,
            "arm": self._arm,
            "token": self._enter_tokens,
            "credit": self._set_credit,
            "limit": self._set_limit,
            "read": self._read_now,
            "resend": self._resend,
            "display": self._show,
        }

    @property
    def name(self) -> str:
        """Its number, which is its name on the broker."""
        return self.plate.meter

    @property
    def alive_ms(self) -> int:
        """The latest instant that it lived."""
        return self.state.alive_ms

    def memories(self) -> Iterator[tuple[str, MeterState]]:
        """What must be kept when the power fails."""
        yield self.plate.meter, self.state

    # --- the register -------------------------------------------------------------------------

    def register_wh(self, now_ms: int) -> int:
        """The active-import register (1.8.0) at `now_ms`, not before the last change of supply."""
        state = self.state
        load_wh = state.opened_load_wh
        if load_wh is None:
            load_wh = self._load.energy_wh(now_ms)
        return self.plate.opening_wh + load_wh - state.withheld_load_wh

    def credit_wh(self, register_wh: int) -> int | None:
        """The credit as the register stands at `register_wh`, never below zero; None before the
        first token.
        """
        state = self.state
        if state.credit_wh is None:
            return None
        return max(0, state.credit_wh - max(0, register_wh - state.credit_at_wh))

    def _set_credit_to(self, now_ms: int, wh: int) -> None:
        self.state.credit_wh = wh
        self.state.credit_at_wh = self.register_wh(now_ms)

    def _move_relay(self, now_ms: int, to: Relay) -> None:
        state = self.state
        load_wh = self._load.energy_wh(now_ms)
        if to == "closed" and state.opened_load_wh is not None:
            state.withheld_load_wh += load_wh - state.opened_load_wh
            state.opened_load_wh = None
        if to != "closed" and state.opened_load_wh is None:
            state.opened_load_wh = load_wh
        state.relay = to

    # --- life ---------------------------------------------------------------------------------

    def power_up(self, now_ms: int) -> list[Publish]:
        """A new boot. Nothing was used since the last instant that it lived; a reading is due.

        Raises DomainError `clock_behind` if it has already lived later than `now_ms`: the register
        would run backwards.
        """
        state = self.state
        events: list[Publish] = []
        if now_ms < state.alive_ms:
            raise DomainError(
                "clock_behind",
                f"Meter {self.plate.meter} has lived until {format_instant(state.alive_ms)}; "
                "start with the clock of the last run, or with a new state folder.",
            )
        off_ms = state.alive_ms if state.boot else 0
        state.boot += 1
        if off_ms and state.opened_load_wh is None:
            lost = self._load.energy_wh(now_ms) - self._load.energy_wh(off_ms)
            state.withheld_load_wh += max(lost, 0)
        state.alive_ms = now_ms
        state.last_due_ms = now_ms
        self._online = False
        self._buffer(now_ms)
        if off_ms:
            info = {"off_from": format_instant(off_ms)}
            events.append(self._event(now_ms, "power_return", info))
        return events

    def connected(self, now_ms: int) -> list[Publish]:
        """What a meter says first: hello, the newest reading, then its buffer."""
        self._catch_up(now_ms)
        self._online = True
        self._replayed_ms = now_ms
        pending = list(self.state.pending)
        said = [self._hello(now_ms)]
        if pending:
            # A receipt covers all that came before: not yet true while the buffer is to be said.
            form = self._form(pending[-1], hist=False, rcpt=len(pending) == 1)
            said.append(Publish("reading", encode(form)))
        return said + self._history(pending[:-1])

    def disconnected(self) -> None:
        """Readings go to the buffer alone until `connected`."""
        self._online = False

    def next_wake_ms(self) -> int:
        """The next instant at which `tick` has something to do."""
        due_ms = self._next_due_ms()
        if self.state.relay == "armed":
            return min(due_ms, self.state.armed_ms + BUTTON_DELAY_MS)
        return due_ms

    def tick(self, now_ms: int) -> list[Publish]:
        """Take the readings that fell due, press an armed button, send again what was lost."""
        said: list[Publish] = []
        for row in self._catch_up(now_ms):
            if self._online:
                rcpt = row.seq % RECEIPT_EVERY == 0 or self._receipt_overdue(row.ts_ms)
                said.append(Publish("reading", encode(self._form(row, hist=False, rcpt=rcpt))))
            said += self._over_power(row)
        state = self.state
        if state.relay == "armed" and now_ms >= state.armed_ms + BUTTON_DELAY_MS:
            said += self.move_by_hand(now_ms, "closed")
        if self._online and now_ms - self._replayed_ms >= RETRY_MS:
            unanswered = [row for row in state.pending if now_ms - row.ts_ms >= RETRY_MS]
            self._replayed_ms = now_ms
            said += self._history(unanswered)
        return said

    def receive(self, now_ms: int, kind: Kind, payload: bytes) -> list[Publish]:
        """Handle a message of `dn/{kind}`. Bytes that are no such message change nothing."""
        said = self.tick(now_ms)
        if kind == "receipt":
            # Of a receipt that cannot be read nothing is freed; the server will say it again.
            with suppress(DomainError):
                self._free(*parse_receipt(payload))
        if kind == "cfg":
            # What is not signed with a key held already, or is no newer, changes nothing.
            with suppress(DomainError):
                self._configure(payload)
        if kind == "cmd":
            said += self._command(now_ms, payload)
        return said

    @property
    def command_keys(self) -> tuple[VerificationKey, ...]:
        """The verification keys in force: those of the newest configuration, else the plate's."""
        newest = tuple(VerificationKey(text) for text in self.state.command_keys)
        return newest or self.plate.command_keys

    def _configure(self, payload: bytes) -> None:
        state = self.state
        taken = parse_configuration(payload, self.plate.meter, self.command_keys, state.cfg_version)
        state.cfg_version = taken.version
        state.command_keys = [key.text for key in taken.command_keys]

    def move_by_hand(self, now_ms: int, to: Relay) -> list[Publish]:
        """Somebody at the meter moves its relay: an armed one lawfully, any other as tampering."""
        self._move_relay(now_ms, to)
        return [self._event(now_ms, "relay_by_hand", {"relay": to})]

    # --- readings -----------------------------------------------------------------------------

    def _next_due_ms(self) -> int:
        plate = self.plate
        passed = (self.state.last_due_ms - plate.phase_ms) // plate.interval_ms
        return plate.phase_ms + (passed + 1) * plate.interval_ms

    def _catch_up(self, now_ms: int) -> list[Row]:
        rows = []
        while (due_ms := self._next_due_ms()) <= now_ms:
            self.state.last_due_ms = due_ms
            rows.append(self._buffer(due_ms))
        self.state.alive_ms = max(self.state.alive_ms, now_ms)
        return rows

    def _buffer(self, at_ms: int) -> Row:
        state = self.state
        state.seq += 1
        row = Row(state.boot, state.seq, at_ms, self.register_wh(at_ms), state.relay)
        state.pending.append(row)
        return row

    def _form(self, row: Row, *, hist: bool, rcpt: bool) -> dict[str, object]:
        form: dict[str, object] = {
            "v": 1,
            "boot": row.boot,
            "seq": row.seq,
            "ts": format_instant(row.ts_ms),
            "tq": "sync",
            "hist": hist,
            "reg": {ACTIVE_IMPORT: row.wh},
            "relay": row.relay,
            "rcpt": rcpt,
        }
        if self.state.credit_wh is not None and not hist:
            form["credit"] = {"mode": "hybrid", "wh": self.credit_wh(row.wh) or 0}
        return form

    def _history(self, rows: Sequence[Row]) -> list[Publish]:
        parts = [rows[i : i + ROWS_PER_MESSAGE] for i in range(0, len(rows), ROWS_PER_MESSAGE)]
        said = []
        for part in parts:
            forms = [encode(self._form(row, hist=True, rcpt=True)) for row in part]
            said.append(Publish("reading", b"[" + b",".join(forms) + b"]"))
        return said

    def _receipt_overdue(self, now_ms: int) -> bool:
        oldest_ms = self.state.pending[0].ts_ms
        return now_ms - oldest_ms > RECEIPT_EVERY * self.plate.interval_ms + 60_000

    def _free(self, boot: int, seq: int) -> None:
        self.confirm({row for row in self.state.pending if row.boot == boot and row.seq <= seq})

    def confirm(self, rows: AbstractSet[Row]) -> None:
        """The server keeps these rows: they leave the buffer for the archive."""
        state = self.state
        confirmed = [row for row in state.pending if row in rows]
        if confirmed:
            kept = [row for row in state.pending if row not in rows]
            state.archive.extend(confirmed)
            state.pending.clear()
            state.pending.extend(kept)

    def _over_power(self, row: Row) -> list[Publish]:
        limit_w, pending = self.state.limit_w, self.state.pending
        if limit_w is None or len(pending) < 2:
            return []
        before = pending[-2]
        used, span_ms = row.wh - before.wh, row.ts_ms - before.ts_ms
        if span_ms <= 0 or used * MS_PER_HOUR <= limit_w * span_ms:
            return []
        return [self._event(row.ts_ms, "over_power", {"w": used * MS_PER_HOUR // span_ms})]

    # --- reports ------------------------------------------------------------------------------

    def _hello(self, now_ms: int) -> Publish:
        state = self.state
        buffered: dict[str, object] = {"rows": len(state.pending)}
        if state.pending:
            buffered["oldest"] = format_instant(state.pending[0].ts_ms)
        form = {
            "v": 1,
            "model": MODEL,
            "fw": FIRMWARE,
            "boot": state.boot,
            "seq": state.seq,
            "ts": format_instant(now_ms),
            "tq": "sync",
            "reg": {ACTIVE_IMPORT: self.register_wh(now_ms)},
            "relay": state.relay,
            "ctr": max(state.ctr, 0),
            "cfg": state.cfg_version,
            "buf": buffered,
        }
        return Publish("hello", encode(form))

    def _event(self, now_ms: int, kind: str, info: Mapping[str, object]) -> Publish:
        boot, ts = self.state.boot, format_instant(now_ms)
        form = {"v": 1, "type": kind, "ts": ts, "boot": boot, "info": dict(info)}
        return Publish("event", encode(form))

    def _ack(self, now_ms: int, cmd: str, state: AckState, **facts: object) -> Publish:
        form: dict[str, object] = {
            "v": 1,
            "cmd": cmd,
            "state": state,
            "relay": self.state.relay,
            "reg": {ACTIVE_IMPORT: self.register_wh(now_ms)},
            "ts": format_instant(now_ms),
        }
        return Publish("ack", encode({**form, **facts}))

    # --- commands -----------------------------------------------------------------------------

    def _command(self, now_ms: int, payload: bytes) -> list[Publish]:
        try:
            signed = parse_signed_command(payload)
            keys = self.command_keys
            command = verify_command(signed, self.plate.meter, keys) if keys else signed.command
        except CommandError as error:
            if error.cmd is None:
                return []
            return [self._ack(now_ms, error.cmd, "refused", why=error.code)]
        state = self.state
        if command.ctr == state.ctr and state.last_ack is not None:
            return [Publish("ack", state.last_ack)]
        if command.ctr <= state.ctr:
            return [self._ack(now_ms, command.cmd, "refused", why="stale")]
        if now_ms >= command.expires_ms:
            said = [self._ack(now_ms, command.cmd, "failed", why="expired")]
        else:
            said = self._acts[command.type](now_ms, command)
        state.ctr = command.ctr
        state.last_ack = said[-1].payload
        return said

    def _done(self, now_ms: int, command: Command) -> list[Publish]:
        return [self._ack(now_ms, command.cmd, "done")]

    def _refuse(self, now_ms: int, command: Command) -> list[Publish]:
        return [self._ack(now_ms, command.cmd, "refused", why="bad_command")]

    def _switch(self, now_ms: int, command: Command) -> list[Publish]:
        to = command.args.get("to")
        if to not in {"open", "close"}:
            return self._refuse(now_ms, command)
        accepted = self._ack(now_ms, command.cmd, "accepted")
        self._move_relay(now_ms, "open" if to == "open" else "closed")
        return [accepted, *self._done(now_ms, command)]

    def _arm(self, now_ms: int, command: Command) -> list[Publish]:
        if self.state.relay == "open":
            self._move_relay(now_ms, "armed")
            self.state.armed_ms = now_ms
        return self._done(now_ms, command)

    def _enter_tokens(self, now_ms: int, command: Command) -> list[Publish]:
        digits = command.args.get("tokens")
        known = isinstance(digits, list) and digits and all(isinstance(d, str) for d in digits)
        if self._enter_token is None or not known or not isinstance(digits, list):
            return self._refuse(now_ms, command)
        outcomes = [self.enter_token(now_ms, token) for token in digits]
        good = all(outcome["result"] in TOKEN_SUCCESSES for outcome in outcomes)
        final: AckState = "done" if good else "failed"
        return [
            self._ack(now_ms, command.cmd, "accepted"),
            self._ack(now_ms, command.cmd, final, token=outcomes[-1], tokens=outcomes),
        ]

    def enter_token(self, now_ms: int, digits: str) -> TokenOutcome:
        """A token from the network or typed at the keypad. Raises DomainError `no_key`."""
        if self._enter_token is None:
            raise DomainError("no_key", f"Give meter {self.plate.meter} a decoder key first.")
        state = self.state
        entry = self._enter_token(state.token_memory, digits)
        state.token_memory = entry.memory
        if entry.clears_credit:
            self._set_credit_to(now_ms, 0)
        if entry.credited_wh:
            left_wh = self.credit_wh(self.register_wh(now_ms)) or 0
            self._set_credit_to(now_ms, left_wh + entry.credited_wh)
        if entry.limit_w is not None:
            state.limit_w = entry.limit_w or None
        return entry.outcome

    def _set_credit(self, now_ms: int, command: Command) -> list[Publish]:
        wh = command.args.get("wh")
        if type(wh) is not int:
            return self._refuse(now_ms, command)
        self._set_credit_to(now_ms, wh)
        return self._done(now_ms, command)

    def _set_limit(self, now_ms: int, command: Command) -> list[Publish]:
        watts = command.args.get("w")
        if type(watts) is not int or watts < 0:
            return self._refuse(now_ms, command)
        self.state.limit_w = watts or None
        return self._done(now_ms, command)

    def _read_now(self, now_ms: int, command: Command) -> list[Publish]:
        row = self._buffer(now_ms)
        reading = Publish("reading", encode(self._form(row, hist=False, rcpt=True)))
        return [reading, *self._done(now_ms, command)]

    def _resend(self, now_ms: int, command: Command) -> list[Publish]:
        boot, first, last = (command.args.get(name) for name in ("boot", "from", "to"))
        if type(boot) is not int or type(first) is not int or type(last) is not int:
            return self._refuse(now_ms, command)
        kept = sorted({*self.state.archive, *self.state.pending})
        rows = [row for row in kept if row.boot == boot and first <= row.seq <= last]
        if not rows:
            return [self._ack(now_ms, command.cmd, "failed", why="not_kept")]
        return [*self._history(rows), *self._done(now_ms, command)]

    def _show(self, now_ms: int, command: Command) -> list[Publish]:
        text = command.args.get("text")
        if not isinstance(text, str):
            return self._refuse(now_ms, command)
        self.state.display = text
        return self._done(now_ms, command)
