"""A defect of a decoder costs its message, never the worker."""

from typing import Any

import pytest

from meter_gateway import ingest
from meter_gateway.inbox import Delivery
from meter_gateway.ingest import IngestLoop
from meter_gateway.metrics import GatewayMetrics


def test_a_message_that_breaks_the_decoder_is_refused_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError("a defect of ours")

    monkeypatch.setattr(ingest, "decode_up", broken)
    nothing: Any = None
    loop = IngestLoop(nothing, [nothing], nothing, lambda: 0, GatewayMetrics(1))
    delivery = Delivery("pm/v1/m/37000000017/up/reading", b"{}", None, 1, 0, nothing)
    decoded = loop._decode(delivery, 0, 0).decoded
    [refused] = decoded.refused
    assert (refused.reason, refused.raw) == ("undecodable", b"{}")
