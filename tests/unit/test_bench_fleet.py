"""What a measured fleet says: each meter once in a slot, registers that only grow, one day."""

from collections import Counter

import orjson
import pytest

from benchmarks import population
from benchmarks.load import LoadError
from benchmarks.population import Population
from benchmarks.stage import CLOCK_SLOT, METERS_A_GATEWAY, Fleet, reading_topic
from schemas.decoding import decode_up
from schemas.topics import parse

METERS = 250
NOW_MS = population.instant_ms(CLOCK_SLOT)


@pytest.fixture
def fleet():
    return Fleet(Population(METERS))


def readings(messages):
    found = Counter()
    for topic, body in messages:
        decoded = decode_up(parse(topic), body, None, NOW_MS)
        assert not decoded.refused
        found.update((each.meter, each.seq, each.value_wh) for each in decoded.readings)
    return found


def test_singles_go_on_where_the_last_ones_ended(fleet):
    said = readings(fleet.singles(METERS + 50)[0])
    assert fleet.unfinished() == METERS - 50
    said += readings(fleet.singles(fleet.unfinished())[0])
    first = population.FIRST_SLOT + 1
    assert said == Counter(
        (f"{n:011d}", slot, population.register_wh(slot))
        for n in range(1, METERS + 1)
        for slot in (first, first + 1)
    )
    assert fleet.slot == first + 1


def test_batches_say_the_same_as_singles(fleet):
    other = Fleet(Population(METERS))
    batches = fleet.batches(2)
    assert len(batches) == 2 * -(-METERS // METERS_A_GATEWAY)
    assert readings(batches) == readings(other.singles(2 * METERS)[0])


def test_receipts_are_asked_for_by_the_places_that_are_told(fleet):
    messages, asked = fleet.singles(25, receipt_every=10)
    assert asked == [0, 10, 20]
    wants = [place for place, (_, body) in enumerate(messages) if orjson.loads(body)["rcpt"]]
    assert wants == asked
    assert messages[3][0] == reading_topic(fleet.numbers[3])


def test_a_fleet_says_no_more_than_a_day_holds(fleet):
    fleet.singles((CLOCK_SLOT - 2) * METERS)
    with pytest.raises(LoadError, match="take more meters, fewer repetitions"):
        fleet.singles(1)
