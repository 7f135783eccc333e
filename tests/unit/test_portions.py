"""A commit takes a bounded number of readings, in order, and every message once."""

from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from meter_gateway.ingest import READINGS_MAX, IngestLoop
from meter_gateway.metrics import GatewayMetrics
from schemas.telemetry import Decoded, DecodedReading
from store.incoming import Incoming

READING = DecodedReading("37000000017", "1.8.0", 0, 0, 1, 1, "sync", False, False, None)


def message(readings: int) -> Incoming:
    return Incoming(None, "", b"", None, Decoded(readings=(READING,) * readings))


@given(sizes=st.lists(st.sampled_from([0, 1, 100, READINGS_MAX - 1, READINGS_MAX * 2]), min_size=1))
def test_every_message_is_in_one_portion_of_bounded_size(sizes: list[int]) -> None:
    messages = [message(size) for size in sizes]
    deliveries: list[Any] = list(range(len(sizes)))
    nothing: Any = None
    loop = IngestLoop(nothing, [nothing], nothing, lambda: 0, GatewayMetrics(1))
    with patch.object(IngestLoop, "_decode", lambda _, place, *__: messages[place]):
        portions = list(loop._portions(deliveries, READINGS_MAX))
    assert [each for taken, _ in portions for each in taken] == deliveries
    assert [each for _, said in portions for each in said] == messages
    for taken, said in portions:
        assert len(taken) == len(said)
        total = sum(len(each.decoded.readings) for each in said)
        # A single message is never parted.
        assert total <= READINGS_MAX or len([s for s in said if s.decoded.readings]) == 1
