import time

import pytest

from prepaid.commands.simulate import _broker, simulated_clock
from schemas.errors import DomainError
from schemas.quantities import format_instant
from simulators.fleet import Broker


def test_a_fast_clock_is_a_function_of_real_time_and_its_origin() -> None:
    real_ms = time.time_ns() // 1_000_000
    origin_ms = (real_ms - 60_000) // 1000 * 1000
    shown_ms = simulated_clock(100, format_instant(origin_ms))()
    assert 0 <= shown_ms - (origin_ms + (real_ms - origin_ms) * 100) < 10_000


@pytest.mark.parametrize(("speed", "origin"), [(2, None), (2, "2099-01-01T00:00:00Z"), (1, "now")])
def test_a_clock_that_would_jump_is_refused(speed: int, origin: str | None) -> None:
    with pytest.raises(DomainError):
        simulated_clock(speed, origin)


@pytest.mark.parametrize(
    ("text", "broker"),
    [
        ("localhost", Broker("localhost", 1883)),
        ("127.0.0.1:18883", Broker("127.0.0.1", 18883)),
        ("mqtt://127.0.0.1:18883", Broker("127.0.0.1", 18883)),
    ],
)
def test_brokers_are_named_by_host_and_port(text: str, broker: Broker) -> None:
    assert _broker(text) == broker


@pytest.mark.parametrize("text", ["host:", ":1883", "host:port"])
def test_a_broker_without_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(DomainError) as caught:
        _broker(text)
    assert caught.value.code == "bad_broker"
