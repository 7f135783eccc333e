"""Whatever the link does, what the meter read is stored, once the link holds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.commands import receipt
from schemas.decoding import decode_up
from schemas.topics import Topic
from simulators import meter_state
from simulators.meter import Meter, Nameplate, Publish
from simulators.meter_state import MeterState, Row

NUMBER = "37000000017"
T0 = 1_772_323_200_000
QUARTER = 900_000


class SteadyLoad:
    def energy_wh(self, ms: int) -> int:
        return (ms - T0) // 60_000


class World:
    """A meter, a link that breaks, and a server that gives receipts when the contract says so."""

    def __init__(self, *, prompt: bool) -> None:
        # Whether receipts arrive between two messages of one greeting, or after it.
        self.prompt = prompt
        self.now_ms = T0
        self.stored: dict[int, int] = {}
        self.read: dict[int, int] = {}
        self.receipts: list[bytes] = []
        self.state = MeterState()
        self.connected = False
        self.power_up()

    def power_up(self) -> None:
        self.state = meter_state.load(meter_state.dump(self.state))
        self.meter = Meter(Nameplate(NUMBER, 1000, QUARTER, 0), SteadyLoad(), self.state)
        self.meter.power_up(self.now_ms)
        self.connected = False
        # A receipt on its way stays on its way: the session is persistent.
        self.remember()

    def remember(self) -> None:
        self.read |= {row.ts_ms: row.wh for row in self.state.pending}

    def deliver(self, said: list[Publish], arriving: int) -> None:
        """The first `arriving` messages reach the server; then the link breaks."""
        self.remember()
        for message in said[:arriving]:
            topic = Topic("m", NUMBER, "up", message.kind)
            readings = decode_up(topic, message.payload, None, self.now_ms).readings
            self.stored |= {r.ts_ms: r.value_wh for r in readings}
            asked = [r for r in readings if r.rcpt or r.hist]
            for boot in {r.boot for r in asked}:
                seq = max(r.seq for r in asked if r.boot == boot)
                self.receipts.append(receipt(boot, seq))
            if self.prompt:
                self.hear()
        if arriving < len(said):
            self.meter.disconnected()
            self.connected = False

    def connect(self, arriving: int) -> None:
        if not self.connected:
            self.connected = True
            self.deliver(self.meter.connected(self.now_ms), arriving)

    def pass_time(self, ms: int, arriving: int) -> None:
        self.now_ms += ms
        self.deliver(self.meter.tick(self.now_ms), arriving)

    def hear(self) -> None:
        if self.connected and self.receipts:
            self.meter.receive(self.now_ms, "receipt", self.receipts.pop(0))


times = st.integers(0, 40).map(lambda quarters: quarters * QUARTER + 1)
passing = st.tuples(st.just("pass"), times, st.integers(0, 40))
connecting = st.tuples(st.just("connect"), st.integers(0, 5), st.just(0))
hearing = st.tuples(st.just("hear"), st.just(0), st.just(0))
rebooting = st.tuples(st.just("reboot"), st.just(0), st.just(0))
# Reboots are rarer: each closes a boot whose rows only a replay can free.
steps = st.one_of(passing, passing, passing, connecting, connecting, hearing, rebooting)


def play(world: World, plan: list[tuple[str, int, int]]) -> None:
    for what, first, second in plan:
        if what == "pass":
            world.pass_time(first, second)
        elif what == "connect":
            world.connect(first)
        elif what == "hear":
            world.hear()
        else:
            world.power_up()


@settings(max_examples=150)
@given(st.lists(steps, max_size=25), st.booleans())
def test_every_reading_is_stored_once_the_link_holds(
    plan: list[tuple[str, int, int]], prompt: bool
) -> None:
    world = World(prompt=prompt)
    play(world, plan)
    world.meter.disconnected()
    world.connected = False
    world.connect(10_000)
    assert world.stored == world.read


@settings(max_examples=100)
@given(st.lists(steps, max_size=25))
def test_a_register_never_falls_and_a_counter_never_goes_back(
    plan: list[tuple[str, int, int]],
) -> None:
    world = World(prompt=True)
    play(world, plan)
    rows: list[Row] = sorted(world.state.pending, key=lambda row: row.seq)
    assert [row.ts_ms for row in rows] == sorted(row.ts_ms for row in rows)
    assert [row.boot for row in rows] == sorted(row.boot for row in rows)
    values = [wh for _, wh in sorted(world.read.items())]
    assert values == sorted(values)


@settings(max_examples=50)
@given(st.lists(steps, max_size=15))
def test_a_link_that_holds_empties_the_buffer(plan: list[tuple[str, int, int]]) -> None:
    world = World(prompt=True)
    play(world, plan)
    world.meter.disconnected()
    world.connected = False
    world.connect(10_000)
    for _ in range(8):
        world.pass_time(QUARTER, 10_000)
    while world.receipts:
        world.hear()
    assert len(world.state.pending) < 4
