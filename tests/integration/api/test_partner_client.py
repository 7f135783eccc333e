"""The partners' client against the real API, and the examples of its page."""

import logging
import os
import re
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.signatures import sign
from partner_client import (
    Client,
    DailyFile,
    Keys,
    Line,
    OutcomeUnknown,
    Refused,
    Unexpected,
    Unusable,
)

Site = Any
PAGE = Path(__file__).parents[3] / "docs" / "partners.md"
PAID = datetime(2026, 3, 1, tzinfo=UTC)


class Wire(httpx.BaseTransport):
    """Loses what a test says: a request before it arrives, or an answer on its way back."""

    def __init__(self, *faults: str | int) -> None:
        self.faults = list(faults)
        self.sent: list[httpx.Request] = []
        self._real = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        fault = self.faults.pop(0) if self.faults else "none"
        if fault == "request":
            raise httpx.ConnectError("lost")
        if isinstance(fault, int):
            return httpx.Response(fault, headers={"retry-after": "7"}, text="busy")
        answer = self._real.handle_request(request)
        if fault == "answer":
            answer.close()
            raise httpx.ReadTimeout("lost")
        return answer

    def close(self) -> None:
        self._real.close()


@pytest.fixture
def site(shared_site: Site) -> Site:
    """Real time judges signatures, as it does a bank's."""
    shared_site.clock.wall = time.time()
    return shared_site


def client(site: Site, *faults: str | int, key: str | None = None, **of: Any) -> Any:
    pauses: list[float] = []
    wire = Wire(*faults)
    made = Client(
        str(site.client.base_url), "bank", Keys([key or site.next_bank_key()]), transport=wire,
        sleep=pauses.append, **of,
    )  # fmt: skip
    return made, wire, pauses


def count_of(site: Site, customer: Any) -> int:
    return len(site.get(customer, "/top-ups")["items"])


@pytest.mark.parametrize(
    ("faults", "wanted"),
    [
        (("answer", "answer", "answer"), [1.0, 2.0, 4.0]),
        (("request", "answer"), [1.0, 2.0]),
        ((503, "answer"), [7.0, 2.0]),
        ((429,), [7.0]),
    ],
)
def test_a_lost_answer_is_asked_for_again_and_one_payment_is_made(
    site: Site, faults: tuple[str | int, ...], wanted: list[float]
) -> None:
    customer = site.open()
    made, wire, pauses = client(site, *faults)
    with made:
        paid = made.pay(f"lost-{customer.meter}", customer.meter, "20.00", PAID)
        assert made.payment(paid.partner_txn_id) == paid
    assert (paid.state, len(paid.tokens), count_of(site, customer)) == ("token_issued", 1, 1)
    assert pauses == wanted
    # The same bytes each time, each under a signature of its own.
    of_payment = [each for each in wire.sent if each.method == "POST"]
    assert len({each.content for each in of_payment}) == 1
    assert len({each.headers["webhook-id"] for each in of_payment}) == len(of_payment)


def test_a_client_that_gives_up_says_unknown_and_not_failed(site: Site) -> None:
    customer = site.open()
    number = f"gone-{customer.meter}"
    made, _, pauses = client(site, "answer", "answer", attempts=2)
    with made, pytest.raises(OutcomeUnknown, match="may have been done"):
        made.pay(number, customer.meter, "20.00", PAID)
    assert pauses == [1.0]
    with client(site)[0] as later:
        assert later.payment(number).state == "token_issued"
        # What never arrived is None, which is something else.
        assert later.payment("never") is None
    assert count_of(site, customer) == 1


def test_a_refusal_is_told_once_with_its_field(site: Site) -> None:
    made, wire, pauses = client(site)
    with made, pytest.raises(Refused) as caught:
        made.pay("x", "12345", "20.00", PAID)
    refusal = caught.value
    assert (refusal.status, refusal.code) == (422, "bad_meter_number")
    assert refusal.pointers == ("/meter",)
    assert (len(wire.sent), pauses) == (1, [])


def test_both_keys_sign_while_they_change(site: Site) -> None:
    customer = site.open()
    unknown = "whsec_" + "bm90IGEga2V5IG9mIGFueWJvZHkgaGVyZSAwMDAwMA=="
    with (
        Client(str(site.client.base_url), "bank", Keys([unknown, site.next_bank_key()])) as made,
        Client(str(site.client.base_url), "bank", Keys([unknown])) as stranger,
    ):
        assert made.look_up(account=customer.number).holder == "A••• S•••"
        with pytest.raises(Refused, match="signature_mismatch"):
            stranger.look_up(account=customer.number)


def test_what_is_no_answer_of_ours_is_told_apart() -> None:
    for answer in (
        httpx.Response(200, text="<html>welcome</html>"),
        httpx.Response(200, json={"hello": 1}),
        httpx.Response(302, headers={"location": "https://elsewhere.example/"}),
        httpx.Response(404, text="nothing here"),
    ):
        transport = httpx.MockTransport(lambda _, answer=answer: answer)
        keys = Keys(["whsec_" + "bm90IGEga2V5IG9mIGFueWJvZHkgaGVyZSAwMDAwMA=="])
        with Client("https://utility.example", "bank", keys, transport=transport) as made:
            with pytest.raises(Unexpected):
                made.look_up(account="A-1")
            # Of a payment it proves nothing, so that the outcome is unknown.
            with pytest.raises(OutcomeUnknown):
                made.pay("x", "07000000015", "1.00", PAID)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Client("http://utility.example", "bank", Keys(["a" * 40])),
        lambda: Client("utility", "bank", Keys(["a" * 40])),
        lambda: Client("https://utility.example", "bank", Keys(["a" * 40]), attempts=0),
        lambda: Keys([]),
        lambda: Keys(["whsec_c2hvcnQ="]),
        lambda: Keys(["whsec_not base64 at all, and long enough"]),
        lambda: DailyFile([Line("1", "2", "1.005", PAID)]).form(),
        lambda: DailyFile([Line("1", "2", "1.00", datetime(2026, 3, 1))]).form(),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_sent(make: Any) -> None:
    with pytest.raises(Unusable):
        make()


def test_neither_a_key_nor_a_token_nor_a_body_is_shown(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    customer = site.open()
    key = site.next_bank_key()
    made, _, _ = client(site, "answer", 500, attempts=2, key=key)
    with made:
        with pytest.raises(OutcomeUnknown) as caught:
            made.pay("quiet-1", customer.meter, "20.00", PAID, msisdn="+22236123456")
        paid = made.pay("quiet-1", customer.meter, "20.00", PAID, msisdn="+22236123456")
        said = " ".join(
            (repr(made), repr(Keys([key])), repr(paid), str(paid), repr(caught.value), caplog.text)
        )
    with pytest.raises(Unusable) as slip:
        Keys([key[:-3]])
    said += repr(slip.value)
    for secret in (key, key.removeprefix("whsec_")[:12], paid.tokens[0], "36123456"):
        assert secret not in said


def test_the_clients_signature_is_the_servers() -> None:
    key = "whsec_" + "d2hhdCBub2JvZHkgZ3Vlc3NlcyAwMDAwMDAwMA=="
    body = b'{"meter":"07000000015"}'
    assert Keys([key]).signature("msg_1", 1_790_000_000, body) == sign(
        key, "msg_1", 1_790_000_000, body
    )


def test_the_day_is_agreed_with_the_client(site: Site) -> None:
    customer = site.open()
    paid_at = datetime(2026, 3, 5, 9, 30, 0, 250_000, tzinfo=UTC)
    site.clock.set("2026-03-06T08:00:00Z")
    with client(site)[0] as made:
        made.pay("day-1", customer.meter, "20.5", paid_at)
        before = made.standing(date(2026, 3, 5))
        file = DailyFile(
            [
                Line("day-1", customer.meter, "20.50", paid_at),
                Line("day-2", customer.meter, "3", paid_at + timedelta(minutes=1)),
            ]
        )
        after = made.send_file(date(2026, 3, 5), file)
    assert (before.count, before.sum) == (1, "20.500000")
    # Our trailer is that of the same lines: both sides can compare before any file is sent.
    trailer = DailyFile(file.lines[:1]).form()["trailer"]
    assert isinstance(trailer, dict)
    assert before.sha256 == trailer["sha256"]
    assert [(item.cls, item.partner_txn_id) for item in after.open()] == [("theirs_only", "day-2")]


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_of_the_page_run_as_they_stand(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without a standing charge, which months would have summed up to more than what is paid.
    customer = site.open(tariff=site.free_of_charges())
    now = datetime.now(UTC).replace(microsecond=0)
    site.clock.now = int(now.timestamp() * 1000)
    for name, value in {
        "UTILITY": str(site.client.base_url),
        "UTILITY_KEY": site.next_bank_key(),
        "METER": customer.meter,
    }.items():
        monkeypatch.setitem(os.environ, name, value)
    found = examples()
    assert len(found) >= 8
    # The page pays with the time of then; a repeat must say the same instant.
    names: dict[str, Any] = {}
    for place, block in enumerate(found):
        if "send_file" in block:
            site.clock.now += 24 * 3_600_000
        exec(compile(block, f"example {place}", "exec"), names)
    names["utility"].close()
    printed = capsys.readouterr().out
    assert "A••• S•••" in printed
    assert "enter in this order" in printed
    assert "on_supply" in printed
    assert names["standing"].open() == []
