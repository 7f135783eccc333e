"""Operators sign in: one answer for whatever is wrong, bounds on tries, sessions that end."""

from typing import Any

import pyotp
import pytest

from store import operators
from store.operators import SESSION_MS, TRIES_PER_NAME

Site = Any
WORDS = "correct horse battery"


@pytest.fixture
def site(shared_site: Site) -> Site:
    shared_site.clock.wall += 3600
    return shared_site


def enrol(site: Site, name: str, *, second_factor: bool = False, role: str = "desk") -> str | None:
    operators.add(site.conn, name, role, who="test", now_ms=site.clock.now)
    return operators.reset(
        site.conn, name, WORDS, second_factor=second_factor, who="test", wall_ms=wall_ms(site)
    )


def wall_ms(site: Site) -> int:
    return int(site.clock.wall * 1000)


def sign_in(site: Site, name: str, password: str = WORDS, code: str | None = None) -> Any:
    body = {"name": name, "password": password}
    if code is not None:
        body["code"] = code
    return site.client.post("/v1/auth/operator", json=body)


def bearer(answer: Any) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['session']}"}


def who(site: Site, headers: dict[str, str]) -> Any:
    return site.client.get("/v1/auth/operator", headers=headers)


def test_a_session_says_who_it_is_until_its_end(site: Site, refused: Any) -> None:
    enrol(site, "amy")
    session = bearer(sign_in(site, "AMY"))
    assert who(site, session).json() == {"name": "amy", "role": "desk", "centres": None}
    site.clock.wall += SESSION_MS / 1000 - 1
    assert who(site, session).status_code == 200
    site.clock.wall += 1
    assert refused(who(site, session)) == (401, "access_key_unknown")


def test_signing_out_ends_this_session_only(site: Site, refused: Any) -> None:
    enrol(site, "bea")
    first, second = bearer(sign_in(site, "bea")), bearer(sign_in(site, "bea"))
    assert site.client.delete("/v1/auth/operator", headers=first).status_code == 204
    assert refused(who(site, first)) == (401, "access_key_unknown")
    assert who(site, second).status_code == 200


def test_whatever_is_wrong_has_one_answer(site: Site) -> None:
    enrol(site, "cid")
    enrol(site, "dan", second_factor=True)
    enrol(site, "eve")
    operators.disable(site.conn, "eve", who="test", wall_ms=wall_ms(site))
    tries = [
        sign_in(site, "cid", "correct horse batterz"),
        sign_in(site, "nobody"),
        sign_in(site, "dan"),
        sign_in(site, "dan", code="000000"),
        sign_in(site, "eve"),
    ]
    assert {each.status_code for each in tries} == {401}
    assert len({each.text for each in tries}) == 1
    assert tries[0].json()["code"] == "sign_in_refused"


def test_a_code_serves_once_and_around_its_time(site: Site) -> None:
    secret = enrol(site, "fay", second_factor=True)
    assert secret is not None
    totp = pyotp.TOTP(secret)
    code = totp.at(int(site.clock.wall) - 30)
    assert sign_in(site, "fay", code=f"{code[:3]} {code[3:]}").status_code == 200
    assert sign_in(site, "fay", code=code).status_code == 401
    assert sign_in(site, "fay", code=totp.at(int(site.clock.wall) - 90)).status_code == 401
    assert sign_in(site, "fay", code=totp.at(int(site.clock.wall))).status_code == 200


def test_tries_are_counted_per_name_even_when_the_last_is_right(site: Site, refused: Any) -> None:
    enrol(site, "gil")
    enrol(site, "hal")
    for _ in range(TRIES_PER_NAME):
        assert sign_in(site, "gil", "wrong wrong wrong").status_code == 401
    late = sign_in(site, "gil")
    assert refused(late) == (429, "too_many_attempts")
    assert 0 < int(late.headers["retry-after"]) <= 900
    assert sign_in(site, "hal").status_code == 200
    site.clock.wall += int(late.headers["retry-after"])
    assert sign_in(site, "gil").status_code == 200


def test_tries_are_counted_per_address(
    site: Site, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "TRIES_PER_ADDRESS", 3)
    for number in range(3):
        assert sign_in(site, f"nobody{number}").status_code == 401
    assert refused(sign_in(site, "nobody9")) == (429, "too_many_attempts")


def test_a_new_password_ends_every_session(site: Site, refused: Any) -> None:
    enrol(site, "ida")
    session = bearer(sign_in(site, "ida"))
    operators.reset(
        site.conn, "ida", WORDS + "!", second_factor=False, who="test", wall_ms=wall_ms(site)
    )
    assert refused(who(site, session)) == (401, "access_key_unknown")
    assert sign_in(site, "ida").status_code == 401
    assert sign_in(site, "ida", WORDS + "!").status_code == 200


def test_a_disabled_operator_can_do_nothing_and_comes_back(site: Site, refused: Any) -> None:
    enrol(site, "joe")
    now_ms = wall_ms(site)
    session = bearer(sign_in(site, "joe"))
    key = operators.add_access_key(site.conn, "joe", "export", who="test", now_ms=now_ms)
    program = {"Authorization": f"Bearer {key}"}
    assert who(site, program).status_code == 200
    assert operators.disable(site.conn, "joe", who="test", wall_ms=now_ms)
    assert not operators.disable(site.conn, "joe", who="test", wall_ms=now_ms)
    for headers in (session, program):
        assert refused(who(site, headers)) == (401, "access_key_unknown")
    assert operators.enable(site.conn, "joe", who="test", wall_ms=now_ms)
    assert who(site, program).status_code == 200
    assert refused(who(site, session)) == (401, "access_key_unknown")


def test_a_revoked_key_ends(site: Site, refused: Any) -> None:
    enrol(site, "kim")
    now_ms = wall_ms(site)
    key = operators.add_access_key(site.conn, "kim", "export", who="test", now_ms=now_ms)
    (prefix,) = operators.find(site.conn, "kim").key_prefixes or ()
    assert key.startswith(prefix)
    operators.revoke_access_key(site.conn, prefix, who="test", now_ms=now_ms)
    assert refused(who(site, {"Authorization": f"Bearer {key}"})) == (401, "access_key_unknown")


def test_nothing_secret_is_kept_or_shown(site: Site) -> None:
    secret = enrol(site, "lea")
    session = sign_in(site, "lea").json()["session"]
    kept = site.conn.execute(
        "SELECT (SELECT string_agg(i::text, ' ') FROM operator_identity i)"
        " || (SELECT string_agg(s::text, ' ') FROM operator_session s)"
        " || (SELECT string_agg(l::text, ' ') FROM audit_log l)"
    ).fetchone()[0]
    assert secret is None
    for text in (WORDS, session):
        assert text not in kept
    wrong = sign_in(site, "lea", "a secret of mine")
    assert "a secret of mine" not in wrong.text
    assert "a secret of mine" not in repr(operators.Passed("lea", "a secret of mine", "1", "::"))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "amy"},
        {"name": "amy", "password": ""},
        {"name": "a\0b", "password": WORDS},
        {"name": "amy", "password": "x" * 257},
        {"name": "amy", "password": WORDS, "code": "1"},
        {"name": "amy", "password": [WORDS]},
    ],
)
def test_a_body_that_is_none_is_refused_without_its_words(
    site: Site, refused: Any, body: dict[str, Any]
) -> None:
    answer = site.client.post("/v1/auth/operator", json=body)
    assert refused(answer) == (422, "invalid_request")
    assert WORDS not in answer.text
