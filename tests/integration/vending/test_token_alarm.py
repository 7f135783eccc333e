"""A meter that reads nothing of what it is sold is told of, once."""

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from meter_gateway.token_alarm import EVERY_MS, TokenAlarm
from schemas.quantities import parse_instant_ms
from store.session import Session
from store.unread_tokens import BURST_MS, BURST_TOKENS, unread_tokens
from tokens.keys import DecoderKey

NOON = parse_instant_ms("2026-03-02T12:00:00Z")


@pytest.fixture
def other_key(desk):
    """A meter that holds another key than our record says."""
    box = desk.meter()
    box.memory = replace(box.memory, decoder_key=DecoderKey(bytes(range(100, 116))))
    return box


def sell(desk, box, times):
    for _ in range(times):
        desk.vend(box)
        assert box.take(NOON) == [["AuthenticationError"]]


def test_several_different_tokens_of_a_day_make_a_burst(desk, other_key):
    sell(desk, other_key, BURST_TOKENS - 1)
    assert unread_tokens(desk.conn, NOON) == []
    sell(desk, other_key, 1)
    (found,) = unread_tokens(desk.conn, NOON)
    assert (found.meter, found.tokens, found.newest_ms) == (other_key.number, BURST_TOKENS, NOON)
    assert unread_tokens(desk.conn, NOON + BURST_MS) == []


def test_one_token_that_is_carried_often_is_none(desk, other_key):
    desk.vend(other_key)
    ((command, digits),) = other_key.waiting()
    for _ in range(2 * BURST_TOKENS):
        other_key.answer(command, [other_key.enter(each) for each in digits], NOON)
    assert unread_tokens(desk.conn, NOON) == []


async def test_the_alarm_tells_a_meter_once_and_again_after_it_recovered(desk, other_key):
    sell(desk, other_key, BURST_TOKENS)
    session, registry = Session(desk.url, "test"), CollectorRegistry()
    alarm = TokenAlarm(registry)
    standing = []
    with capture_logs() as logs:
        for at_ms in (NOON, NOON + 1, NOON + EVERY_MS, NOON + BURST_MS, NOON + BURST_MS + 1):
            await alarm.look(session, at_ms)
            standing.append(registry.get_sample_value("prepaid_meters_not_authenticating"))
        sell_later = NOON + BURST_MS + 2 * EVERY_MS
        desk.conn.execute("UPDATE token SET answered_at = at_ms(%s)", (sell_later,))
        await alarm.look(session, sell_later)
    await session.close()
    assert standing == [1, 1, 1, 0, 0]
    told = [(each["event"], each["meter"], each["count"]) for each in logs]
    assert told == [("tokens_not_authenticated", other_key.number, BURST_TOKENS)] * 2
