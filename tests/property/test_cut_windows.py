"""No supply is cut inside a non-disconnection window: whatever the clock of the meter says, however
long the order waits, and however often it comes.
"""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from credit_engine.guards import LEAST_LIFE_MS, cut_expiry_ms
from credit_engine.protection import Protection, protection_of
from credit_engine.tariff import parse_account, parse_tariff
from schemas.commands import Command, payload
from simulators.meter import Meter, Nameplate
from simulators.meter_state import MeterState, dump, load

T0 = 1_772_323_200_000  # 2026-03-01T00:00:00Z
MINUTE = 60_000
DAY = 24 * 60 * MINUTE
LIFE = 15 * MINUTE
# Paris: two of the days in the range are not 24 hours long.
TARIFF = parse_tariff(
    {
        "timezone": "Europe/Paris",
        "currency": "EUR",
        "holidays": ["2026-03-05"],
        "tariff": {
            "versions": [
                {
                    "valid_from": "2026-01-01",
                    "period": "month",
                    "bands": [{"name": "a", "method": "graduated", "blocks": [{"price": "1"}]}],
                }
            ]
        },
    }
)
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"]


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@st.composite
def protections(draw: st.DrawFn) -> Protection:
    windows = []
    for _ in range(draw(st.integers(1, 3))):
        begin, end = draw(st.lists(st.integers(0, 1439), min_size=2, max_size=2, unique=True))
        days = draw(st.lists(st.sampled_from(DAYS), min_size=1, unique=True))
        windows.append({"days": days, "from": clock(begin), "to": clock(end)})
    account = {"activated_at": "2026-01-01T00:00:00Z", "non_disconnection": windows}
    terms = parse_account(account, TARIFF)
    return protection_of(terms.tariff, terms.non_disconnection)


class Nobody:
    """No load."""

    def energy_wh(self, ms: int) -> int:
        return 0


@settings(max_examples=150, deadline=None)
@given(
    protection=protections(),
    decided_ms=st.integers(T0, T0 + 35 * DAY),
    margin_ms=st.integers(0, 30 * MINUTE),
    skew=st.fractions(-1, 1),
    deliveries=st.lists(st.tuples(st.integers(0, 2 * LIFE), st.booleans()), min_size=1, max_size=4),
)
def test_no_order_to_cut_is_obeyed_inside_a_window(
    protection: Protection,
    decided_ms: int,
    margin_ms: int,
    skew: object,
    deliveries: list[tuple[int, bool]],
) -> None:
    expires_ms = cut_expiry_ms(protection, decided_ms, LIFE, margin_ms)
    assume(expires_ms is not None)
    assert expires_ms is not None
    off_ms = int(skew * margin_ms)  # type: ignore[operator]  # a fraction of the accepted drift
    state = MeterState()
    start_ms = decided_ms + off_ms - DAY
    plate = Nameplate("37000000017", 0, DAY, 0)
    meter = Meter(plate, Nobody(), state)
    meter.power_up(start_ms)
    order = payload(Command("c", "relay", 1, decided_ms, expires_ms, {"to": "open"}))
    for delay_ms, restarts in sorted(deliveries):
        true_ms = decided_ms + delay_ms
        if restarts:
            state = load(dump(state))
            meter = Meter(plate, Nobody(), state)
            meter.power_up(true_ms + off_ms)
        before = state.relay
        meter.receive(true_ms + off_ms, "cmd", order)
        if before == "closed" and state.relay == "open":
            assert not protection.holds(true_ms)


@settings(max_examples=150, deadline=None)
@given(
    protection=protections(),
    now_ms=st.integers(T0, T0 + 35 * DAY),
    margin_ms=st.integers(0, 30 * MINUTE),
)
def test_an_order_is_given_outside_the_windows_with_time_to_arrive_or_not_at_all(
    protection: Protection, now_ms: int, margin_ms: int
) -> None:
    expires_ms = cut_expiry_ms(protection, now_ms, LIFE, margin_ms)
    edge_ms = protection.next_edge(now_ms)
    if expires_ms is None:
        assert protection.holds(now_ms) or (
            edge_ms is not None and edge_ms - margin_ms - now_ms < LEAST_LIFE_MS
        )
    else:
        assert LEAST_LIFE_MS <= expires_ms - now_ms <= LIFE
        assert edge_ms is None or expires_ms + margin_ms <= edge_ms
