"""Event streams: how everything stands, what happens, and nothing lost or twice on coming again."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from schemas.quantities import format_instant
from store import operators, supply

Site = Any
Event = tuple[str, dict[str, Any], str]


@pytest.fixture
def site(lively_site: Site) -> Site:
    return lively_site


def path_of(account: str) -> str:
    return f"/v1/accounts/{account}/events"


@contextmanager
def listening(
    site: Site, customer: Any, headers: dict[str, str] | None = None, last: str | None = None
) -> Iterator[Iterator[Event]]:
    """The events of one connection, as they come: (name, data, id)."""
    more = {} if last is None else {"Last-Event-ID": last}
    with site.client.stream(
        "GET", path_of(customer.number), headers={**(headers or customer.headers), **more}
    ) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events_in(answer)


def events_in(answer: httpx.Response, *, until_quiet: bool = False) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if until_quiet and line == ": alive":
            return
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and "data" in fields:
            yield fields["event"], json.loads(fields["data"]), fields["id"]
            fields = {}


def take(events: Iterator[Event], number: int) -> list[Event]:
    return [next(events) for _ in range(number)]


def refusal(site: Site, customer: Any, headers: dict[str, str]) -> tuple[int, str]:
    found = site.client.get(path_of(customer.number), headers=headers)
    return found.status_code, found.json()["code"]


def test_a_stream_begins_with_how_everything_stands(site: Site) -> None:
    customer = site.open(tariff=site.free_of_charges())
    site.read(customer, "2026-03-01T01:00:00Z", 101_000)
    balance = site.get(customer, "/balance")
    with listening(site, customer) as events:
        stand = {name: data for name, data, _ in take(events, 3)}
    assert stand["balance"]["balance"] == balance["balance"]
    assert stand["balance"]["entry"] is None
    assert stand["reading"]["wh"] == 101_000
    assert stand["reading"]["at"] == balance["last_reading"]["at"]
    assert stand["supply"]["state"] == balance["supply"]["state"]


def test_what_happens_is_told_as_it_is_committed(site: Site) -> None:
    customer = site.open(tariff=site.free_of_charges())
    with listening(site, customer) as events:
        ((name, stand, _),) = take(events, 1)
        assert (name, stand["reported"]) == ("supply", None)
        site.read(customer, "2026-03-01T01:00:00Z", 101_000)
        reading, balance, cut = take(events, 3)
        assert (reading[0], reading[1]["wh"]) == ("reading", 101_000)
        assert (balance[0], balance[1]["kind"]) == ("balance", "energy")
        assert balance[1]["amount"]["amount"] == "-2.459000"
        assert balance[1]["balance"]["amount"] == "-2.459000"
        assert site.get(customer, f"/entries/{balance[1]['entry']}")["energy_wh"] == 1000
        assert (cut[0], cut[1]["state"]) == ("supply", "disconnected")
        paid = site.pay(customer, "50.00", "pay-1").json()
        told = take(events, 5)
    assert [name for name, _, _ in told] == ["balance", "supply", "top_up", "top_up", "token"]
    assert told[0][1]["kind"] == "top_up"
    assert told[1][1]["state"] == "connected"
    assert [each["state"] for _, each, _ in told[2:4]] == ["credited", "token_issued"]
    assert {each["id"] for _, each, _ in told[2:4]} == {paid["id"]}
    assert told[4][1]["digits"] == paid["tokens"][0]
    assert told[4][1]["state"] == "issued"


def take_token(site: Site, customer: Any) -> None:
    """The meter is sent the newest token, and accepts it."""
    queued = [command for _, _, command in supply.queued_commands(site.conn, 50)]
    carrier = [command for command in queued if command.type == "token"][-1]
    supply.mark_sent(site.conn, [carrier.cmd], site.clock.now)
    word = dict.fromkeys(("format", "authentication", "validation", "execution"), True)
    ack = {
        "v": 1,
        "cmd": carrier.cmd,
        "state": "done",
        "relay": "closed",
        "token": {**word, "result": "Accept"},
        "ts": format_instant(site.clock.now),
    }
    site.say(customer.meter, "ack", ack)


def a_day_of(site: Site, customer: Any) -> list[Callable[[], object]]:
    """Things that happen one after the other; each moves something."""
    return [
        lambda: site.read(customer, "2026-03-01T01:00:00Z", 100_400, relay="closed"),
        lambda: site.read(customer, "2026-03-01T02:00:00Z", 101_000, relay="open"),
        lambda: site.pay(customer, "20.00", f"{customer.number}-1"),
        # Late: it moves no newest reading.
        lambda: site.read(customer, "2026-03-01T01:30:00Z", 100_700),
        lambda: take_token(site, customer),
        lambda: site.pay(customer, "30.00", f"{customer.number}-2"),
        lambda: site.read(customer, "2026-03-01T03:00:00Z", 102_000),
    ]


def history(site: Site, customer: Any, start: str) -> list[Event]:
    """All that a reader is told from a place until the stream is quiet, on one connection."""
    headers = {**customer.headers, "Last-Event-ID": start}
    with site.client.stream("GET", path_of(customer.number), headers=headers) as answer:
        return list(events_in(answer, until_quiet=True))


def moves(told: list[Event]) -> dict[str, list[dict[str, Any]]]:
    """What is told in full whoever listens when; relay and tokens are told as they stand. Top-ups
    of one millisecond have no order but that of their receipts.
    """
    found = {
        kind: [data for name, data, _ in told if name == kind]
        for kind in ("balance", "reading", "top_up")
    }
    found["top_up"].sort(key=lambda data: int(data["receipt_number"]))
    return found


def tokens_at_last(told: list[Event]) -> list[str]:
    """The last state that was told of each token; of tokens at one look the order is none."""
    return sorted(
        {data["digits"]: data["state"] for name, data, _ in told if name == "token"}.values()
    )


def test_coming_again_after_every_event_loses_nothing_and_repeats_nothing(site: Site) -> None:
    customer = site.open()
    with listening(site, customer) as events:
        start = take(events, 1)[-1][2]
    for happens in a_day_of(site, customer):
        happens()
    whole = history(site, customer, start)
    assert {name for name, _, _ in whole} == {"balance", "reading", "supply", "top_up", "token"}
    assert len({place for _, _, place in whole}) == len(whole)
    # One event a connection: each begins where the one before broke off.
    parts, last = [], start
    while len(parts) < len(whole):
        with listening(site, customer, last=last) as events:
            parts += take(events, 1)
        last = parts[-1][2]
    assert parts == whole
    # While nothing happens, nothing is told again.
    with listening(site, customer, last=last) as events:
        site.read(customer, "2026-03-01T04:00:00Z", 103_000)
        assert next(events)[1]["wh"] == 103_000


def test_who_comes_and_goes_is_told_what_one_who_stays_is_told(site: Site) -> None:
    customer = site.open()
    with listening(site, customer) as events:
        start = last = take(events, 1)[-1][2]
    coming: list[Event] = []
    staying: list[Event] = []
    with listening(site, customer, last=start) as events:
        for happens in a_day_of(site, customer):
            happens()
            with listening(site, customer, last=last) as visit:
                coming += take(visit, 1)
            last = coming[-1][2]
        coming += history(site, customer, last)
        # A token is told behind what moved at the same look.
        while [*map(len, moves(staying).values())] != [*map(len, moves(coming).values())] or (
            tokens_at_last(staying) != ["accepted", "issued"]
        ):
            staying += take(events, 1)
        # Nothing that was told already comes before what happens next.
        site.read(customer, "2026-03-01T04:00:00Z", 103_000)
        following = next(each for each in events if each[0] in moves([]))
        assert following[1].get("wh") == 103_000
    ledger = site.get(customer, "/entries", limit=100)["items"]
    told = [each["entry"] for each in moves(staying)["balance"]]
    assert told == [each["id"] for each in reversed(ledger)][: len(told)]
    assert moves(staying) == moves(coming)
    whole = moves(history(site, customer, start))
    assert whole["balance"][: len(moves(staying)["balance"])] == moves(staying)["balance"]
    assert [each for each in moves(staying)["top_up"] if each not in whole["top_up"]] == []
    relays = [data["reported"] for name, data, _ in staying if name == "supply"]
    assert relays[-1] == "closed"
    assert tokens_at_last(coming) == tokens_at_last(staying)


def test_a_place_of_another_account_or_none_at_all_begins_anew(site: Site) -> None:
    customer, other = site.open(), site.open()
    site.read(customer, "2026-03-01T01:00:00Z", 101_000)
    with listening(site, other) as events:
        foreign = next(events)[2]
    for last in (foreign, "x", "1.2.3", "1.1.1.1.1.open.1:1:q", "9" * 300):
        with listening(site, customer, last=last) as events:
            assert [name for name, _, _ in take(events, 3)] == ["balance", "reading", "supply"]


def test_a_stream_ends_with_its_session(site: Site) -> None:
    customer, phone = site.open(), "+22222334455"
    site.reach(customer, phone)
    session = site.signed_in(phone)
    with listening(site, customer, session) as events:
        take(events, 1)
        assert site.client.delete("/v1/auth/sessions", headers=session).status_code == 204
        assert list(events) == []
    assert refusal(site, customer, session) == (401, "access_key_unknown")


def test_a_stream_ends_with_the_part_in_the_account_and_tells_nothing_after(site: Site) -> None:
    customer, phone = site.open(), "+22222334455"
    body = {"phone": phone, "role": "holder"}
    grants = f"/v1/accounts/{customer.number}/grants"
    made = site.client.post(grants, headers=customer.headers, json=body).json()
    session = site.signed_in(phone)
    with listening(site, customer, session) as events:
        take(events, 1)
        site.client.delete(f"{grants}/{made['id']}", headers=customer.headers)
        site.read(customer, "2026-03-01T01:00:00Z", 101_000)
        assert list(events) == []


def test_a_payer_and_an_operator_without_digits_hear_nothing(site: Site) -> None:
    customer, phone = site.open(), "+22222334455"
    body = {"phone": phone, "role": "payer"}
    site.client.post(f"/v1/accounts/{customer.number}/grants", headers=customer.headers, json=body)
    assert refusal(site, customer, site.signed_in(phone)) == (404, "not_found")
    operators.add(site.conn, "fin", "finance", who="test", now_ms=site.clock.now)
    key = operators.add_access_key(site.conn, "fin", "t", who="test", now_ms=site.clock.now)
    headers = {"Authorization": f"Bearer {key}"}
    assert refusal(site, customer, headers) == (403, "role_refused")
    assert refusal(site, customer, {}) == (401, "access_key_missing")


def test_streams_are_bounded_per_caller_and_of_the_process(site: Site) -> None:
    customers = [site.open() for _ in range(4)]
    with ExitStack() as stack:
        # Whoever lets go of what he iterates over is gone.
        kept = []
        for customer in customers[:3]:
            for _ in range(3 if customer is not customers[2] else 2):
                kept.append(stack.enter_context(listening(site, customer)))
                take(kept[-1], 1)
        found = site.client.get(path_of(customers[0].number), headers=customers[0].headers)
        assert (found.status_code, found.json()["code"]) == (429, "too_many_streams")
        assert int(found.headers["retry-after"]) > 0
        assert "You have 3" in found.json()["detail"]
        found = site.client.get(path_of(customers[3].number), headers=customers[3].headers)
        assert (found.status_code, found.json()["code"]) == (429, "too_many_streams")
        assert "this server" in found.json()["detail"]
    # A place is free again once its reader is gone.
    for _ in range(200):
        found = site.client.build_request(
            "GET", path_of(customers[3].number), headers=customers[3].headers
        )
        answer = site.client.send(found, stream=True)
        answer.close()
        if answer.status_code == 200:
            break
    assert answer.status_code == 200


def test_readers_who_take_nothing_hold_no_connection(site: Site) -> None:
    # More streams than the pool has connections, and none of them is read.
    customers = [site.open() for _ in range(3)]
    with ExitStack() as stack:
        for customer in customers:
            for _ in range(3 if customer is not customers[2] else 2):
                stack.enter_context(listening(site, customer))
        for number in range(12):
            site.read(customers[0], f"2026-03-01T01:{number:02d}:00Z", 100_100 + number)
            assert site.get(customers[0], "/balance")["account"] == customers[0].number


def test_a_quiet_stream_says_that_it_lives(site: Site) -> None:
    customer = site.open()
    with site.client.stream("GET", path_of(customer.number), headers=customer.headers) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry: ")
        assert ": alive" in (next(lines) for _ in range(12))


def test_a_server_that_ends_ends_its_streams_in_good_order(site: Site) -> None:
    customer = site.open()
    with listening(site, customer) as events:
        take(events, 1)
        site.stop()
        # A stream that was cut off instead would be a protocol error.
        assert list(events) == []


def test_many_readers_of_one_account_are_all_told(site: Site) -> None:
    customer = site.open()
    told: list[int] = []

    def listen() -> None:
        with listening(site, customer) as events:
            take(events, 1)
            ready.wait()
            told.append(next(each for each in events if each[0] == "reading")[1]["wh"])

    ready = threading.Barrier(4)
    threads = [threading.Thread(target=listen) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait()
    site.read(customer, "2026-03-01T01:00:00Z", 101_000)
    for thread in threads:
        thread.join()
    assert told == [101_000] * 3
