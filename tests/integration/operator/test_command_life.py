"""The life of a command: claimed, sent, answered, tried again, given up."""

import threading
from collections.abc import Callable
from itertools import product
from typing import Any, get_args

import psycopg
import pytest

from schemas.commands import TRANSITIONS, may_become
from schemas.identity import command_id
from schemas.retries import LATE
from schemas.telemetry import Ack
from schemas.wire import AckState
from store import clockwork, dead_letters, outbox, registry, supply
from store.errors import Conflict, NotFound
from store.outbox import Pacing
from store.registry import NewMeter

Desk = Any
MINUTE = 60_000
UNPACED = Pacing(at_once=1000, spacing_ms=0)


def meters(desk: Desk, count: int, gateway: str | None = None) -> list[int]:
    return [
        registry.add_meter(
            desk.conn, desk.centre, NewMeter(f"{next(desk.serials):011d}", gateway=gateway)
        )
        for _ in range(count)
    ]


def order(
    desk: Desk, meter: int, kind: str = "read", life_ms: int = 15 * MINUTE, **args: Any
) -> str:
    return supply.queue(desk.conn, meter, kind, args, desk.now, desk.now + life_ms)  # type: ignore[arg-type]  # the case


def claimed(desk: Desk, pacing: Pacing = UNPACED, limit: int = 1000) -> list[str]:
    return [each.command.cmd for each in outbox.claim(desk.conn, desk.now, limit, pacing)]


def state(desk: Desk, cmd: str) -> str:
    row = desk.conn.execute("SELECT state FROM command WHERE id = %s", (cmd,)).fetchone()
    return str(row[0])


def say(
    desk: Desk, cmd: str, word: str, *, meter: int | None = None, why: str | None = None
) -> bool:
    row = desk.conn.execute(
        "SELECT number FROM meter WHERE id = coalesce(%s, (SELECT meter_id FROM command"
        " WHERE id = %s))",
        (meter, cmd),
    ).fetchone()
    ack = Ack(row[0], cmd, word, desk.now, None, {}, (), why)  # type: ignore[arg-type]  # the case
    return supply.answer(desk.conn, ack, row[0], desk.now)


def ignored(desk: Desk, cmd: str) -> list[tuple[str, str]]:
    return desk.conn.execute(
        "SELECT state, answer ->> 'state' FROM ignored_answer WHERE command_id = %s ORDER BY id",
        (cmd,),
    ).fetchall()


# --- answers ------------------------------------------------------------------------------------


def test_an_answer_moves_a_command_by_the_table_or_is_kept_apart(desk: Desk) -> None:
    (meter,) = meters(desk, 1)
    for before, word in product(TRANSITIONS, get_args(AckState)):
        cmd = order(desk, meter)
        desk.conn.execute("UPDATE command SET state = %s WHERE id = %s", (before, cmd))
        assert say(desk, cmd, word)
        if may_become(before, word):
            assert (state(desk, cmd), ignored(desk, cmd)) == (word, [])
        else:
            repeat = [] if before == word else [(before, word)]
            assert (state(desk, cmd), ignored(desk, cmd)) == (before, repeat)


def test_an_answer_that_overtakes_the_note_that_it_was_sent_counts(desk: Desk) -> None:
    (meter,) = meters(desk, 1)
    cmd = order(desk, meter)
    assert claimed(desk) == [cmd]
    assert say(desk, cmd, "done")
    supply.mark_sent(desk.conn, [cmd], desk.now)
    assert (state(desk, cmd), ignored(desk, cmd)) == ("done", [])


def test_a_word_on_anothers_or_no_command_is_no_answer(desk: Desk) -> None:
    own, other = meters(desk, 2)
    cmd = order(desk, own)
    assert not say(desk, cmd, "done", meter=other)
    assert not say(desk, command_id(desk.now, bytes(10)), "done", meter=own)
    assert state(desk, cmd) == "queued"


def test_an_answer_after_the_expiry_still_tells_how_it_ended(desk: Desk) -> None:
    (meter,) = meters(desk, 1)
    sent, unsaid = order(desk, meter), order(desk, meter)
    supply.mark_sent(desk.conn, [sent], desk.now)
    desk.now += 15 * MINUTE
    clockwork.close_overdue(desk.conn, desk.now)
    assert (state(desk, sent), state(desk, unsaid)) == ("unknown", "expired")
    say(desk, sent, "done")
    say(desk, unsaid, "done")
    assert (state(desk, sent), state(desk, unsaid)) == ("done", "expired")
    assert ignored(desk, unsaid) == [("expired", "done")]


@pytest.mark.parametrize("kind", ["token", "read"])
@pytest.mark.parametrize("late", sorted(LATE))
@pytest.mark.parametrize("word", [("done", None), ("failed", "jammed"), ("refused", "no_relay")])
def test_how_a_command_ended_does_not_hang_on_which_word_of_a_repeat_comes_first(
    desk: Desk, kind: str, late: tuple[str, str], word: tuple[str, str | None]
) -> None:
    args = {"tokens": ["1" * 20]} if kind == "token" else {}
    ends = []
    for said in ((word, late), (late, word)):
        (meter,) = meters(desk, 1)
        cmd = order(desk, meter, kind, **args)
        supply.mark_sent(desk.conn, [cmd], desk.now)
        for state_said, why in said:
            say(desk, cmd, state_said, why=why)
        ends.append(
            desk.conn.execute(
                "SELECT c.state, c.answer ->> 'why', c.retry_ms, d.reason FROM command c"
                " LEFT JOIN dead_letter d ON d.command_id = c.id WHERE c.id = %s",
                (cmd,),
            ).fetchone()
        )
    assert ends[0] == ends[1]
    assert ends[0][:3] == (*word, None)


def test_that_a_repeat_came_too_late_is_no_end_to_begin_from_again(desk: Desk) -> None:
    (meter,) = meters(desk, 1)
    cmd = order(desk, meter)
    supply.mark_sent(desk.conn, [cmd], desk.now)
    say(desk, cmd, "refused", why="stale")
    for word, why in (("accepted", None), ("executing", None), ("failed", "expired")):
        say(desk, cmd, word, why=why)
    assert state(desk, cmd) == "refused"
    assert [word for _, word in ignored(desk, cmd)] == ["accepted", "executing", "failed"]


# --- the way out --------------------------------------------------------------------------------


def test_a_meters_commands_go_one_after_the_other_by_their_counters(
    desk: Desk, database_url: str, as_owner: Callable[[str], str]
) -> None:
    one, other = meters(desk, 2)
    first, second = order(desk, one), order(desk, one)
    third = order(desk, other)
    # A clock that was set back does not turn the order round.
    with psycopg.connect(as_owner(database_url)) as owner:
        owner.execute("UPDATE command SET issued_ms = issued_ms - 5000 WHERE id = %s", (second,))
    assert set(claimed(desk)) == {first, third}
    assert claimed(desk) == []
    supply.mark_sent(desk.conn, [first], desk.now)
    assert claimed(desk) == [second]


def test_a_claim_that_lapses_or_is_given_back_is_taken_again(desk: Desk) -> None:
    (meter,) = meters(desk, 1)
    cmd = order(desk, meter)
    assert claimed(desk) == [cmd]
    desk.now += outbox.CLAIM_MS - 1
    assert claimed(desk) == []
    desk.now += 1
    assert claimed(desk) == [cmd]
    outbox.release_claims(desk.conn, [cmd])
    assert claimed(desk) == [cmd]


def test_what_was_perhaps_said_is_unknown_at_its_expiry_not_expired(desk: Desk) -> None:
    (meter,) = meters(desk, 1)
    cmd = order(desk, meter)
    claimed(desk)
    desk.now += 15 * MINUTE
    assert claimed(desk) == []
    clockwork.close_overdue(desk.conn, desk.now)
    assert state(desk, cmd) == "unknown"


def test_dispatchers_side_by_side_claim_each_command_once(desk: Desk) -> None:
    wanted = {order(desk, meter) for meter in meters(desk, 40)}
    taken: list[str] = []

    def work() -> None:
        with psycopg.connect(desk.url, autocommit=True) as conn:
            while found := outbox.claim(conn, desk.now, 7, UNPACED):
                taken.extend(each.command.cmd for each in found)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    # One that met the others' locks may have gone home early; nothing went twice.
    taken += claimed(desk)
    assert sorted(taken) == sorted(wanted)


def test_a_gateway_gets_one_command_at_a_time_at_its_pace_and_supply_first(desk: Desk) -> None:
    pacing = Pacing(at_once=2, spacing_ms=2000, answer_ms=60_000)
    behind = meters(desk, 4, "G-1")
    reads = [order(desk, meter) for meter in behind[:3]]
    close = order(desk, behind[3], "relay", to="close")
    (own,) = meters(desk, 1)
    direct = order(desk, own)
    assert set(claimed(desk, pacing)) == {close, direct}
    supply.mark_sent(desk.conn, [close, direct], desk.now)
    desk.now += 1999
    assert claimed(desk, pacing) == []
    desk.now += 1
    assert claimed(desk, pacing) == reads[:1]
    supply.mark_sent(desk.conn, reads[:1], desk.now)
    # Two are in the air: no third until one is answered, or is silent for a minute.
    desk.now += 10_000
    assert claimed(desk, pacing) == []
    say(desk, close, "done")
    assert claimed(desk, pacing) == reads[1:2]
    supply.mark_sent(desk.conn, reads[1:2], desk.now)
    desk.now += 60_000
    assert claimed(desk, pacing) == reads[2:]


# --- again, and no more -------------------------------------------------------------------------


def unheard_cut(desk: Desk) -> int:
    """An account out of credit whose meter is told to cut and reports the relay closed."""
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 8_000, relay="closed")
    return int(account)


def life(desk: Desk, account: int) -> None:
    """An hour: what is queued goes, expires unanswered, and the meter reports."""
    desk.sent()
    desk.now += 60 * MINUTE
    clockwork.close_overdue(desk.conn, desk.now)
    desk.sent()
    desk.now += 1000
    at = desk.instant()
    desk.read(account, at, 8_000, relay="closed")
    clockwork.reconcile(desk.conn, desk.terms, desk.now, 10)


def test_no_answer_is_followed_by_a_reading_and_only_its_word_by_another_order(desk: Desk) -> None:
    account = unheard_cut(desk)
    desk.sent()
    desk.now += 15 * MINUTE
    overdue = clockwork.close_overdue(desk.conn, desk.now)
    assert (overdue.expired, overdue.read_first) == (1, 1)
    for _ in range(3):
        assert clockwork.reconcile(desk.conn, desk.terms, desk.now, 10) == 0
    assert desk.orders(account) == [("open", "unknown")]
    desk.now += 1000
    desk.read(account, desk.instant(), 8_000, relay="closed")
    assert clockwork.reconcile(desk.conn, desk.terms, desk.now, 10) == 1
    assert desk.orders(account) == [("open", "superseded"), ("open", "queued")]


def test_a_relay_that_does_not_obey_for_two_days_is_a_dead_letter(desk: Desk) -> None:
    account = unheard_cut(desk)
    rounds = 0
    while not (dead := dead_letters.dead_letters(desk.conn, all_states=False, limit=9)):
        life(desk, account)
        rounds += 1
        assert rounds < 60
    (letter,) = dead
    assert (letter.reason, letter.type) == ("not_obeyed", "relay")
    assert letter.attempt == rounds == 48
    orders = len(desk.orders(account))
    life(desk, account)
    assert len(desk.orders(account)) == orders
    outbox.reopen(desk.conn, letter.id, by="a", note="contactor changed", now_ms=desk.now)
    life(desk, account)
    assert len(desk.orders(account)) == orders + 1
    row = desk.conn.execute("SELECT attempt FROM command WHERE type = 'relay' ORDER BY ctr DESC")
    assert row.fetchone() == (1,)


def test_a_refused_relay_is_given_up_until_it_is_desired_anew(desk: Desk) -> None:
    account = unheard_cut(desk)
    (queued,) = supply.queued_commands(desk.conn, 9)
    desk.sent()
    say(desk, queued.command.cmd, "refused", why="bad_command")
    life(desk, account)
    assert desk.orders(account) == [("open", "refused")]
    (letter,) = dead_letters.dead_letters(desk.conn, all_states=False, limit=9)
    assert letter.reason == "refused: bad_command"
    dead_letters.close(desk.conn, letter.id, by="a", note="old firmware", now_ms=desk.now)
    assert dead_letters.dead_letters(desk.conn, all_states=False, limit=9) == []
    desk.pay(account, 50, desk.instant())
    desk.read(account, desk.instant(60), 60_000, relay="closed")
    assert desk.orders(account)[-1] == ("open", "queued")


def test_an_order_that_nobody_could_send_is_decided_again_without_a_report(desk: Desk) -> None:
    account = unheard_cut(desk)
    desk.now += 15 * MINUTE
    clockwork.close_overdue(desk.conn, desk.now)
    assert clockwork.reconcile(desk.conn, desk.terms, desk.now, 10) == 1
    assert desk.orders(account) == [("open", "expired"), ("open", "queued")]


def test_a_dead_letter_of_another_command_goes_again_when_reopened(desk: Desk) -> None:
    (meter,) = meters(desk, 1)
    cmd = order(desk, meter, "display", text="hello")
    desk.sent()
    say(desk, cmd, "refused", why="unknown_type")
    (letter,) = dead_letters.dead_letters(desk.conn, all_states=False, limit=9)
    with pytest.raises(Conflict, match="why"):
        outbox.reopen(desk.conn, letter.id, by="a", note=" ", now_ms=desk.now)
    outbox.reopen(desk.conn, letter.id, by="a", note="new firmware", now_ms=desk.now)
    (queued,) = supply.queued_commands(desk.conn, 9)
    assert (queued.command.type, queued.command.args) == ("display", {"text": "hello"})
    with pytest.raises(Conflict) as caught:
        dead_letters.close(desk.conn, letter.id, by="a", note="b", now_ms=desk.now)
    assert caught.value.code == "letter_decided"
    with pytest.raises(NotFound):
        dead_letters.close(desk.conn, letter.id + 1, by="a", note="b", now_ms=desk.now)


# --- the stopwatch ------------------------------------------------------------------------------


def test_the_stopwatch_runs_from_the_payment_to_the_newest_word_closed(desk: Desk) -> None:
    account = desk.open()
    desk.pay(account, 10, "2026-03-01T01:00:00Z")
    desk.read(account, "2026-03-01T02:00:00Z", 8_000, relay="closed")
    desk.read(account, "2026-03-01T02:15:00Z", 8_100, relay="open")
    desk.pay(account, 50, "2026-03-01T03:00:00Z")
    # A report from before the cut that comes now says nothing of now.
    desk.turn("2026-03-01T03:00:30Z")
    desk.read(account, "2026-03-01T02:10:00Z", 8_050, relay="closed")
    assert desk.took(account) == []
    recorded = desk.read(account, "2026-03-01T03:01:40Z", 8_100, relay="closed")
    assert desk.took(account) == [100]
    assert recorded.reconnections_ms == [100_000]
    # A payment of one who was never off is no reconnection.
    desk.pay(account, 50, "2026-03-01T04:00:00Z")
    recorded = desk.read(account, "2026-03-01T04:15:00Z", 8_200, relay="closed")
    assert (recorded.reconnections_ms, desk.took(account)) == ([], [100])


# --- who waits for whom -------------------------------------------------------------------------


def relay_overdue(desk: Desk) -> Callable[[psycopg.Connection], object]:
    order(desk, meters(desk, 1)[0], "relay", to="open", why="out_of_credit")
    desk.sent()
    desk.now += 15 * MINUTE
    return lambda conn: clockwork.close_overdue(conn, desk.now)


def token_to_retry(desk: Desk) -> Callable[[psycopg.Connection], object]:
    cmd = order(desk, meters(desk, 1)[0], "token", tokens=["1" * 20], tid=1)
    desk.conn.execute(
        "UPDATE command SET state = 'unknown', retry_ms = %s WHERE id = %s", (desk.now, cmd)
    )
    return lambda conn: outbox.retry_due(conn, desk.now, 10)


def command_sent(desk: Desk) -> Callable[[psycopg.Connection], object]:
    cmd = order(desk, meters(desk, 1)[0])
    assert claimed(desk) == [cmd]
    return lambda conn: supply.mark_sent(conn, [cmd], desk.now)


def order_to_repeat(desk: Desk) -> Callable[[psycopg.Connection], object]:
    account = unheard_cut(desk)
    desk.sent()
    desk.now += 15 * MINUTE
    clockwork.close_overdue(desk.conn, desk.now)
    desk.now += 1000
    desk.read(account, desk.instant(), 8_000, relay="closed")
    return lambda conn: clockwork.reconcile(conn, desk.terms, desk.now, 10)


@pytest.mark.parametrize("case", [relay_overdue, token_to_retry, command_sent, order_to_repeat])
def test_who_moves_commands_waits_for_their_meter_first(
    desk: Desk, case: Callable[[Desk], Callable[[psycopg.Connection], object]]
) -> None:
    """Ingest holds the meter and then takes its commands: the other way round is a deadlock."""
    work = case(desk)
    with (
        psycopg.connect(desk.url) as ingest,
        psycopg.connect(desk.url, autocommit=True) as conn,
    ):
        ingest.execute("SELECT FROM meter_state FOR UPDATE")
        pid = conn.info.backend_pid
        working = threading.Thread(target=work, args=(conn,))
        working.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
        while desk.conn.execute(waiting, (pid,)).fetchone() == (0,):
            assert working.is_alive()
        # Errors with LockNotAvailable where the one who waits holds a command.
        ingest.execute("SELECT FROM command FOR UPDATE NOWAIT")
        ingest.rollback()
        working.join()
