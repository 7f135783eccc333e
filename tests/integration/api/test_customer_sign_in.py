"""Customers sign in with codes: one answer for every number, bounds on tries, sessions that end."""

import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from store import codes, customer_sessions, passwords

Site = Any
PHONES: Iterator[str] = (f"+2222{number:07d}" for number in count(2000001))
DAY_S = 24 * 3600


@pytest.fixture
def site(shared_site: Site) -> Site:
    # Beyond every window of the test before.
    shared_site.clock.wall += 2 * DAY_S
    return shared_site


@pytest.fixture
def phone(site: Site) -> str:
    """The verified phone of a holder of one account."""
    number = next(PHONES)
    site.reach(site.open(), number)
    return number


def ask(site: Site, phone: str) -> Any:
    return site.client.post("/v1/auth/otp", json={"phone": phone})


def answer(site: Site, phone: str, code: str | None) -> Any:
    return site.client.post("/v1/auth/otp/verify", json={"phone": phone, "code": code or "000000"})


def accounts(site: Site, headers: dict[str, str]) -> Any:
    return site.client.get("/v1/accounts", headers=headers)


def other_than(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06d}"


def test_a_code_opens_a_session_that_sees_the_accounts_of_the_phone(site: Site) -> None:
    first, second, phone = site.open(), site.open(), next(PHONES)
    site.reach(first, phone)
    site.reach(second, phone)
    typed = phone.removeprefix("+222").translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))
    assert ask(site, f"{typed[:2]} {typed[2:]}").status_code == 202
    code = site.newest_code()
    assert code is not None
    eastern = code.translate(str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹"))
    session = answer(site, f"00{phone[1:]}", f" {eastern[:3]} {eastern[3:]}")
    headers = {"Authorization": f"Bearer {session.json()['session']}"}
    items = accounts(site, headers).json()["items"]
    assert [(each["account"], each["role"]) for each in items] == [
        (first.number, "owner"), (second.number, "owner"),
    ]  # fmt: skip
    assert site.client.get(
        f"/v1/accounts/{second.number}/balance", headers=headers
    ).status_code == 200  # fmt: skip


def test_asking_is_answered_alike_for_every_number(site: Site, phone: str) -> None:
    known, unknown = ask(site, phone), ask(site, next(PHONES))
    for each in (known, unknown):
        assert each.status_code == 202
    assert known.content == unknown.content
    changing = {"x-request-id", "date"}
    assert {name: value for name, value in known.headers.items() if name not in changing} == {
        name: value for name, value in unknown.headers.items() if name not in changing
    }
    rows = site.conn.execute(
        "SELECT state, address, code IS NULL FROM code_message ORDER BY id DESC LIMIT 2"
    ).fetchall()
    assert rows == [("void", None, True), ("queued", phone, False)]


def test_the_same_work_is_done_for_every_number(
    site: Site, phone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    hashing, matching = passwords.hashed_code, passwords.matches

    def hash_noted(code: str) -> str:
        hashed.append("made")
        return hashing(code)

    def match_noted(code_hash: str | None, code: str) -> bool:
        hashed.append("compared")
        return matching(code_hash, code)

    monkeypatch.setattr(passwords, "hashed_code", hash_noted)
    monkeypatch.setattr(passwords, "matches", match_noted)
    for number in (phone, next(PHONES)):
        hashed.clear()
        ask(site, number)
        answer(site, number, "000000")
        assert hashed == ["made", "compared"]
    hashed.clear()
    assert answer(site, next(PHONES), "000000").status_code == 401
    assert hashed == ["compared"]


def test_whatever_is_wrong_has_one_answer(site: Site, phone: str) -> None:
    ask(site, phone)
    code = site.newest_code()
    assert code is not None
    tries = [answer(site, phone, other_than(code)), answer(site, next(PHONES), code)]
    nobody = next(PHONES)
    ask(site, nobody)
    tries.append(answer(site, nobody, code))
    assert answer(site, phone, code).status_code == 200
    tries.append(answer(site, phone, code))  # used
    site.clock.wall += 31
    ask(site, phone)
    late = site.newest_code()
    site.clock.wall += codes.LIFE_MS / 1000
    tries.append(answer(site, phone, late))
    ask(site, phone)
    replaced = site.newest_code()
    while site.newest_code() == replaced:
        site.clock.wall += 31
        ask(site, phone)
    tries.append(answer(site, phone, replaced))
    assert {each.status_code for each in tries} == {401}
    assert len({each.content for each in tries}) == 1
    assert tries[0].json()["code"] == "code_refused"


def test_a_code_lives_until_its_last_moment(site: Site, phone: str) -> None:
    ask(site, phone)
    site.clock.wall += codes.LIFE_MS / 1000 - 1
    assert answer(site, phone, site.newest_code()).status_code == 200


def test_a_code_dies_after_few_tries(site: Site, phone: str) -> None:
    ask(site, phone)
    code = site.newest_code()
    assert code is not None
    for _ in range(codes.TRIES):
        assert answer(site, phone, other_than(code)).status_code == 401
    assert answer(site, phone, code).status_code == 401


def test_of_many_who_give_one_code_at_once_one_gets_a_session(site: Site, phone: str) -> None:
    ask(site, phone)
    code, together = site.newest_code(), threading.Barrier(4)
    statuses: list[int] = []

    def give() -> None:
        together.wait()
        statuses.append(answer(site, phone, code).status_code)

    threads = [threading.Thread(target=give) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 401, 401, 401]
    (sessions,) = site.conn.execute(
        "SELECT count(*) FROM customer_session s JOIN person p ON p.id = s.person_id"
        " WHERE p.phone = %s", (phone,),
    ).fetchone()  # fmt: skip
    assert sessions == 1


def test_codes_to_a_number_are_bounded_whether_it_is_known_or_not(
    site: Site, phone: str, refused: Any
) -> None:
    for number in (phone, next(PHONES)):
        site.clock.wall += 900 - site.clock.wall % 900
        assert ask(site, number).status_code == 202
        soon = ask(site, number)
        assert refused(soon) == (429, "too_many_attempts")
        assert 0 < int(soon.headers["retry-after"]) <= 30
        for _ in range(customer_sessions.CODES_PER_PHONE - 1):
            site.clock.wall += 30
            assert ask(site, number).status_code == 202
        site.clock.wall += 30
        late = ask(site, number)
        assert refused(late) == (429, "too_many_attempts")
        assert 30 < int(late.headers["retry-after"]) <= 900


def test_codes_and_tries_are_bounded_per_address(
    site: Site, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(customer_sessions, "CODES_PER_ADDRESS", 3)
    monkeypatch.setattr(customer_sessions, "TRIES_PER_ADDRESS", 2)
    for _ in range(3):
        assert ask(site, next(PHONES)).status_code == 202
    assert refused(ask(site, next(PHONES))) == (429, "too_many_attempts")
    for _ in range(2):
        assert answer(site, next(PHONES), "1").status_code == 401
    assert refused(answer(site, next(PHONES), "1")) == (429, "too_many_attempts")


def test_tries_are_bounded_per_number_over_many_codes(
    site: Site, phone: str, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(customer_sessions, "TRIES_PER_PHONE", 2)
    for number in (phone, next(PHONES)):
        for _ in range(2):
            assert answer(site, number, "1").status_code == 401
        assert refused(answer(site, number, "1")) == (429, "too_many_attempts")


def test_the_bound_per_customer_tells_nobody(
    site: Site, phone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(customer_sessions, "CODES_PER_CUSTOMER_A_DAY", 1)
    assert ask(site, phone).status_code == 202
    assert site.newest_code() is not None
    site.clock.wall += 31
    assert ask(site, phone).status_code == 202
    assert site.newest_code() is None


def test_a_session_ends_when_it_lies_idle_and_at_its_end(
    site: Site, phone: str, refused: Any
) -> None:
    idle = site.signed_in(phone)
    idle_s = customer_sessions.IDLE_MS / 1000
    site.clock.wall += idle_s - 1
    assert accounts(site, idle).status_code == 200
    # Used just now: idle time begins anew.
    site.clock.wall += idle_s - 1
    assert accounts(site, idle).status_code == 200
    site.clock.wall += idle_s
    assert refused(accounts(site, idle)) == (401, "access_key_unknown")
    kept = site.signed_in(phone)
    began = site.clock.wall
    while site.clock.wall + idle_s / 2 < began + customer_sessions.SESSION_MS / 1000:
        site.clock.wall += idle_s / 2
        assert accounts(site, kept).status_code == 200
    site.clock.wall = began + customer_sessions.SESSION_MS / 1000
    assert refused(accounts(site, kept)) == (401, "access_key_unknown")


def test_sessions_are_listed_and_ended_one_by_one_or_all(
    site: Site, phone: str, refused: Any
) -> None:
    first, second, third = (site.signed_in(phone) for _ in range(3))
    stranger = next(PHONES)
    site.reach(site.open(), stranger)
    foreign = site.signed_in(stranger)
    listed = site.client.get("/v1/auth/sessions", headers=third).json()["items"]
    assert [each["current"] for each in listed] == [True, False, False]
    oldest = f"/v1/auth/sessions/{listed[2]['id']}"
    assert refused(site.client.delete(oldest, headers=foreign)) == (404, "not_found")
    assert site.client.delete(oldest, headers=third).status_code == 204
    assert refused(accounts(site, first)) == (401, "access_key_unknown")
    assert refused(site.client.delete(oldest, headers=third)) == (404, "not_found")
    assert site.client.delete("/v1/auth/sessions/current", headers=second).status_code == 204
    assert refused(accounts(site, second)) == (401, "access_key_unknown")
    fourth = site.signed_in(phone)
    assert site.client.delete("/v1/auth/sessions", headers=third).status_code == 204
    for each in (third, fourth):
        assert refused(accounts(site, each)) == (401, "access_key_unknown")
    assert accounts(site, foreign).status_code == 200


def test_an_access_key_has_no_sessions(site: Site, refused: Any) -> None:
    key = site.open().headers
    assert refused(site.client.get("/v1/auth/sessions", headers=key)) == (403, "no_session")


def test_neither_code_nor_session_is_kept_or_shown(site: Site, phone: str) -> None:
    ask(site, phone)
    code = site.newest_code()
    session = answer(site, phone, code).json()["session"]
    (kept,) = site.conn.execute(
        "SELECT (SELECT string_agg(c::text, ' ') FROM one_time_code c)"
        " || (SELECT string_agg(s::text, ' ') FROM customer_session s)"
    ).fetchone()
    assert session not in kept
    assert f'"{code}"' not in kept
    assert f",{code}," not in kept
    (message, *_) = codes.claim(site.conn, site.wall_ms())
    assert message.code == code
    assert code not in repr(message)
    assert phone not in repr(message)
    assert session not in repr(customer_sessions.NewSession(session, 1))
    codes.sent(site.conn, message.id)
    assert site.conn.execute(
        "SELECT state, address, code FROM code_message WHERE id = %s", (message.id,)
    ).fetchone() == ("sent", None, None)


def test_what_nobody_delivered_in_time_is_forgotten(site: Site, phone: str) -> None:
    ask(site, phone)
    site.clock.wall += codes.LIFE_MS / 1000
    assert codes.claim(site.conn, site.wall_ms()) == []
    assert site.newest_code() is None


def test_a_message_goes_to_one_deliverer_at_a_time(site: Site, phone: str) -> None:
    ask(site, phone)
    (claimed,) = codes.claim(site.conn, site.wall_ms())
    assert codes.claim(site.conn, site.wall_ms()) == []
    site.clock.wall += codes.CLAIM_MS / 1000
    assert [each.id for each in codes.claim(site.conn, site.wall_ms())] == [claimed.id]
    codes.sent(site.conn, claimed.id)


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("123", "bad_phone"),
        ("twenty-two", "bad_phone"),
        ("+2225000000", "phone_not_mobile"),
        ("52 33 44 55", "phone_not_mobile"),
        ("80012345", "phone_not_mobile"),
        ("+33612345678", "phone_not_mobile"),
    ],
)
def test_a_number_that_takes_no_codes_is_refused(
    site: Site, refused: Any, typed: str, code: str
) -> None:
    for path, more in (("otp", {}), ("otp/verify", {"code": "123456"})):
        found = site.client.post(f"/v1/auth/{path}", json={"phone": typed, **more})
        assert refused(found) == (422, code)
        assert found.json()["errors"][0]["pointer"] == "/phone"
