"""A meter that lives by itself on its connection, and what it truly measured, did and answered.

As `simulators.device` for a meter that is moved by hand: the truth is noted where it happens,
before any of it is sent, so that an auditor can judge what became of it after whatever the network,
the broker or the server did meanwhile. What a meter was told is committed leaves its memory for
good: it keeps no archive, so that a receipt that promised too much is a loss.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

import orjson

from schemas.commands import parse_signed_command
from schemas.errors import DomainError
from schemas.topics import Kind
from simulators.device import TokenMemory
from simulators.meter import EnterToken, Load, Meter, Nameplate, Publish
from simulators.meter_state import MeterState

# With one of these a meter is through with a command.
FINAL = frozenset({"done", "failed", "refused"})


@dataclass(slots=True)
class Testimony:
    """What one meter knows to be true.

    `measured`: instant -> Wh. `executed`: command -> how often it was carried out. `answers`:
    command -> its last words on it: several where a broker repeats what it had forgotten, since one
    of before a later command is stale. `tokens.results`: digits -> the word on each entry.
    """

    measured: dict[int, int] = field(default_factory=dict)
    executed: Counter[str] = field(default_factory=Counter)
    answers: dict[str, set[str]] = field(default_factory=dict)
    tokens: TokenMemory = field(default_factory=TokenMemory)


class WitnessedMeter(Meter):
    """Drive it as a `Meter`; `testimony` is the truth about it."""

    def __init__(
        self, plate: Nameplate, load: Load, state: MeterState, enter_token: EnterToken
    ) -> None:
        self.testimony = Testimony()
        super().__init__(plate, load, state, self.testimony.tokens.entering(enter_token))
        state.archive = deque(maxlen=0)

    def power_up(self, now_ms: int) -> list[Publish]:
        """As `Meter.power_up`."""
        return self._noted(super().power_up(now_ms))

    def connected(self, now_ms: int) -> list[Publish]:
        """As `Meter.connected`."""
        return self._noted(super().connected(now_ms))

    def tick(self, now_ms: int) -> list[Publish]:
        """As `Meter.tick`."""
        return self._noted(super().tick(now_ms))

    def receive(self, now_ms: int, kind: Kind, payload: bytes) -> list[Publish]:
        """As `Meter.receive`; a command whose counter moved the meter's was carried out now."""
        before = self.state.ctr
        said = self._noted(super().receive(now_ms, kind, payload))
        if kind == "cmd" and self.state.ctr != before:
            self.testimony.executed[_command_id(payload)] += 1
        return said

    def _noted(self, said: list[Publish]) -> list[Publish]:
        measured = self.testimony.measured
        for row in reversed(self.state.pending):
            if row.ts_ms in measured:
                break
            measured[row.ts_ms] = row.wh
        for message in said:
            if message.kind == "ack":
                form = orjson.loads(message.payload)
                if form["state"] in FINAL:
                    self.testimony.answers.setdefault(form["cmd"], set()).add(form["state"])
        return said


def _command_id(payload: bytes) -> str:
    try:
        return parse_signed_command(payload).command.cmd
    except DomainError:  # the meter took it all the same: that will be told as a strange command
        return "unreadable"
