"""Whatever happens between a gateway and the server, no row is freed that is not kept there."""

import cbor2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.commands import Command, gateway_receipts, payload
from schemas.decoding import CBOR, LIMIT_BYTES, decode_up
from schemas.topics import Topic
from simulators import meter_state
from simulators.gateway import RETRY_MS, Gateway
from simulators.meter import Meter, Nameplate, Publish
from simulators.meter_state import MeterState

T0 = 1_772_323_200_000
QUARTER = 900_000
NUMBERS = [f"{37_000_000_000 + i:011d}" for i in range(3)]
NAME = "DC-1"


class SteadyLoad:
    def energy_wh(self, ms: int) -> int:
        return (ms - T0) // 60_000


class World:
    """A gateway with three meters, a link that loses messages, a server that answers batches."""

    def __init__(self, *, cbor: bool = False) -> None:
        self.cbor = cbor
        self.now_ms = T0
        self.stored: dict[tuple[str, int], int] = {}
        self.read: dict[tuple[str, int], int] = {}
        self.batches: list[dict[str, object]] = []
        self.said: list[Publish] = []
        self.answers: list[bytes] = []
        self.connected = False
        self.states = {name: MeterState() for name in (NAME, *NUMBERS)}
        self.power_up()

    def power_up(self) -> None:
        self.states = {
            name: meter_state.load(meter_state.dump(state)) for name, state in self.states.items()
        }
        self.meters = [
            Meter(Nameplate(number, 1000, QUARTER, 0), SteadyLoad(), self.states[number])
            for number in NUMBERS
        ]
        self.gateway = Gateway(
            NAME, self.meters, self.states[NAME], interval_ms=QUARTER, cbor=self.cbor
        )
        self.gateway.power_up(self.now_ms)
        self.connected = False

    def deliver(self, said: list[Publish], *, lost: bool) -> None:
        for meter in self.meters:
            rows = [*meter.state.pending, *meter.state.archive]
            self.read |= {(meter.name, row.ts_ms): row.wh for row in rows}
        if lost:
            self.gateway.disconnected()
            self.connected = False
            return
        for message in said:
            self.said.append(message)
            topic = Topic("g", NAME, "up", message.kind)
            kind = CBOR if self.cbor and message.kind == "batch" else None
            assert len(message.payload) <= LIMIT_BYTES["g"]
            decoded = decode_up(topic, message.payload, kind, self.now_ms)
            assert decoded.refused == ()
            if message.kind != "batch":
                continue
            loads = cbor2.loads if self.cbor else orjson.loads
            self.batches.append(loads(message.payload))
            kept: dict[tuple[str, int], int] = {}
            for row in decoded.readings:
                assert self.stored.setdefault((row.meter, row.ts_ms), row.value_wh) == row.value_wh
                kept[row.meter, row.boot] = max(row.seq, kept.get((row.meter, row.boot), 0))
            rows = [(meter, boot, seq) for (meter, boot), seq in kept.items()]
            self.answers += gateway_receipts(decoded.batch_id, rows)

    def connect(self, *, lost: bool = False) -> None:
        if not self.connected:
            self.connected = True
            self.deliver(self.gateway.connected(self.now_ms), lost=lost)

    def pass_time(self, ms: int, *, lost: bool = False) -> None:
        self.now_ms += ms
        self.deliver(self.gateway.tick(self.now_ms), lost=lost)

    def hear(self) -> None:
        if self.connected and self.answers:
            said = self.gateway.receive(self.now_ms, "receipt", self.answers.pop(0))
            self.deliver(said, lost=False)

    def settle(self) -> None:
        """The link holds, and every answer arrives."""
        self.gateway.disconnected()
        self.connected = False
        self.connect()
        for _ in range(2):
            while self.answers:
                self.hear()
            self.pass_time(RETRY_MS)


steps = st.one_of(
    st.tuples(st.just("pass"), st.integers(1, 30), st.booleans()),
    st.tuples(st.just("connect"), st.just(0), st.booleans()),
    st.tuples(st.just("hear"), st.just(0), st.just(False)),
    st.tuples(st.just("reboot"), st.just(0), st.just(False)),
)


@settings(max_examples=60)
@given(st.lists(steps, max_size=20), st.booleans())
def test_every_row_is_stored_once_the_link_holds_and_then_forgotten(
    plan: list[tuple[str, int, bool]], cbor: bool
) -> None:
    world = World(cbor=cbor)
    for what, count, lost in plan:
        if what == "pass":
            world.pass_time(count * QUARTER, lost=lost)
        elif what == "connect":
            world.connect(lost=lost)
        elif what == "hear":
            world.hear()
        else:
            world.power_up()
        waiting = {(m.name, row.ts_ms) for m in world.meters for row in m.state.pending}
        assert world.read.keys() - waiting <= world.stored.keys()
    world.settle()
    while world.answers:
        world.hear()
    assert world.stored == world.read
    assert world.gateway.buffered() == 0


def test_the_newest_slot_goes_first_and_live_and_the_backlog_after_it_as_history() -> None:
    world = World()
    world.now_ms += 40 * QUARTER
    world.connect()
    while world.answers:
        world.hear()
    assert [batch["hist"] for batch in world.batches] == [False, True]
    first, second = world.batches
    assert all(len(line[3]) == 1 for line in first["rows"])  # type: ignore[attr-defined]
    assert sum(len(line[3]) for line in second["rows"]) > 100  # type: ignore[attr-defined,misc]


def test_one_batch_is_in_the_air_until_its_receipt_or_for_a_while() -> None:
    world = World()
    world.connect()
    world.pass_time(1)
    assert len(world.batches) == 1
    world.answers.clear()
    world.pass_time(RETRY_MS)
    assert len(world.batches) == 2
    assert world.gateway.buffered() == 3


def command(kind: str, ctr: int, now_ms: int, **args: object) -> bytes:
    return payload(
        Command(f"c-{ctr}", kind, ctr, now_ms, now_ms + 10**6, args, meter=NUMBERS[1])  # type: ignore[arg-type]
    )


def test_a_command_reaches_the_meter_it_names_and_its_answer_names_it() -> None:
    world = World()
    world.connect()
    order = command("relay", 1, world.now_ms, to="open")
    said = world.gateway.receive(world.now_ms, "cmd", order)
    acks = [orjson.loads(each.payload) for each in said if each.kind == "ack"]
    assert [(ack["meter"], ack["state"]) for ack in acks] == [
        (NUMBERS[1], "accepted"),
        (NUMBERS[1], "done"),
    ]
    assert [meter.state.relay for meter in world.meters] == ["closed", "open", "closed"]


def test_what_is_asked_for_again_comes_as_history() -> None:
    world = World()
    world.connect()
    for _ in range(6):
        world.hear()
        world.pass_time(QUARTER)
    world.hear()
    before = len(world.batches)
    ask = command("resend", 1, world.now_ms, boot=1, **{"from": 2, "to": 4})
    world.deliver(world.gateway.receive(world.now_ms, "cmd", ask), lost=False)
    (batch,) = world.batches[before:]
    assert batch["hist"] is True
    assert [line[:3] for line in batch["rows"]] == [[NUMBERS[1], 1, 2]]  # type: ignore[attr-defined]
    assert [each.kind for each in world.said[-2:]] == ["batch", "ack"]


@pytest.mark.parametrize(
    "wrong", [b"", b"[]", b'{"v":1}', b'{"meter":5}', b'{"meter":"37000000099"}']
)
def test_bytes_that_are_no_command_or_receipt_change_nothing(wrong: bytes) -> None:
    world = World()
    world.connect()
    for kind in ("cmd", "receipt", "time"):
        assert world.gateway.receive(world.now_ms, kind, wrong) == []  # type: ignore[arg-type]


def test_a_batch_that_the_server_cannot_read_is_not_said_for_ever() -> None:
    world = World()
    world.connect()
    (refusal,) = gateway_receipts(None, [], [{"reason": "undecodable"}])
    world.gateway.receive(world.now_ms, "receipt", refusal)
    assert world.gateway.buffered() == 0
