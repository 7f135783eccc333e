"""`prepaid payments` and the file of methods, as somebody at the server types and writes them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from payments.simulated.channel import Plan
from prepaid.cli import main
from prepaid.payment_methods import (
    load_payments_file,
    make_cash,
    make_connectors,
    serving_payments,
)
from prepaid.settings import Payments, Settings
from schemas.errors import DomainError
from tokens.security_module import SoftwareSecurityModule

Market = Any

BANK = {
    "kind": "bpay", "code": "bankily", "name": "Bankily", "url": "https://bank.example",
    "merchant": "1", "username": "u", "password": "the-password-of-this-test", "client": "c",
}  # fmt: skip
WALLET = {
    "kind": "hosted", "code": "masrvi", "name": "Masrvi", "url": "http://127.0.0.1:9",
    "page": "https://wallet.example/page", "merchant": "m", "brand": "b",
    "sources": ["192.0.2.0/28", "2001:db8::/32"],
}  # fmt: skip
AGGREGATOR = {
    "kind": "aggregator", "code": "moosyl", "name": "Moosyl", "url": "https://a.example",
    "dialect": "moosyl", "access_key": "the-key-of-this-test-run", "keys": ["x" * 16],
}  # fmt: skip
TILL = {"kind": "cash", "code": "till", "name": "Cash"}


def write(folder: Path, *methods: dict[str, Any], mode: int = 0o600) -> Path:
    path = folder / "methods.json"
    form = {"public_url": "https://utility.example/", "methods": methods}
    path.write_text(json.dumps(form))
    path.chmod(mode)
    return path


def test_a_file_makes_each_kind_of_method(tmp_path: Path) -> None:
    file = load_payments_file(write(tmp_path, BANK, WALLET, AGGREGATOR, TILL))
    made = make_connectors(file)
    try:
        kinds = [(each.method.code, each.method.kind, each.checks) for each in made]
        assert kinds == [
            ("bankily", "passcode", True), ("masrvi", "page", False), ("moosyl", "page", False),
        ]  # fmt: skip
        cash = make_cash(file, Settings())
        assert cash is not None
        assert (cash.code, cash.coins) == ("till", {"MRU": 200_000})
        assert "the-password-of-this-test" not in repr(file)
        assert "the-key-of-this-test-run" not in repr(file)
    finally:
        for each in made:
            each.close()


@pytest.mark.parametrize(
    ("methods", "place"),
    [
        ([BANK | {"url": "http://bank.example"}], "methods.0.bpay.url"),
        ([BANK | {"code": "Bank ily"}], "methods.0.bpay.code"),
        ([BANK | {"color": "red"}], "methods.0.bpay.color"),
        ([{"kind": "gold"}], "methods.0"),
        ([WALLET | {"sources": []}], "methods.0.hosted.sources"),
        ([WALLET | {"sources": ["everywhere"]}], "methods.0.hosted.sources"),
        ([AGGREGATOR | {"keys": ["short"]}], "methods.0.aggregator.keys"),
        ([TILL, TILL | {"code": "other"}], "one method of kind cash"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_without_its_secrets(
    tmp_path: Path, methods: list[dict[str, Any]], place: str
) -> None:
    path = write(tmp_path, *methods)
    with pytest.raises(DomainError) as refusal:
        make_cash(load_payments_file(path), Settings())
    assert refusal.value.code == "secret_file"
    assert place in str(refusal.value)
    assert "the-password-of-this-test" not in str(refusal.value)
    assert "short" not in str(refusal.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match="chmod 600"):
        load_payments_file(write(tmp_path, TILL, mode=0o644))


@pytest.mark.parametrize("partners", [("bankily",), ()])
def test_two_channels_of_one_code_are_refused(tmp_path: Path, partners: tuple[str, ...]) -> None:
    methods = (BANK,) if partners else (BANK, BANK)
    settings = Settings(payments=Payments(file=write(tmp_path, *methods)))
    module = SoftwareSecurityModule({})
    with (
        pytest.raises(DomainError, match="names two channels"),
        serving_payments(settings, module, lambda: 0, lambda: 0, partners),
    ):
        pytest.fail("it was served")


@pytest.fixture
def prepaid(market: Market, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    monkeypatch.setenv("PREPAID_DATABASE__URL", market.url)
    monkeypatch.setattr(
        "prepaid.commands.payments.open_security_module", lambda _: market.ears.module
    )
    monkeypatch.setattr("prepaid.clock.wall_ms", lambda: market.clock.wall)
    monkeypatch.setattr("prepaid.commands.payments.wall_ms", lambda: market.clock.wall)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prepaid", "payments", *words])
        monkeypatch.setenv("PREPAID_CLOCK", f"{market.clock.wall}:{market.clock.now}:1")
        # What the API said before is not of this command.
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_a_person_sees_what_nobody_knows_and_ends_it(market: Market, prepaid: Any) -> None:
    who = market.customer()
    market.bank.mischief.next_plans.extend([Plan("nothing", "cut")] * 2)
    lost = market.pay_by_bank(who, "50.00")["id"]
    market.clock.advance(1)
    gone = market.pay_by_bank(who, "20.00")["id"]
    market.started(who, "bankily")
    assert prepaid("waiting")[:2] == (0, "")
    market.clock.advance(3601)
    code, out, _ = prepaid("waiting", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [(row["id"], row["state"], row["asked_again"]) for row in rows] == [
        (lost, "unknown", "yes"), (gone, "unknown", "yes"),
    ]  # fmt: skip
    why = ("--by", "vera", "--reason", "the daily file")
    assert prepaid("decide", lost, "--paid", "B-77", *why)[:2] == (0, "paid\n")
    assert prepaid("decide", gone, "--not-paid", *why)[:2] == (0, "failed\n")
    assert prepaid("waiting")[1] == ""
    assert market.show(who, lost)["state"] == "token_issued"
    for words, said in (
        (("decide", lost, "--not-paid", *why), "nothing is left"),
        (("decide", lost, *why), "give either"),
        (("decide", "nobody", "--not-paid", *why), "was not found"),
    ):
        code, out, err = prepaid(*words)
        assert (code, out) == (2, "")
        assert said in err


def test_refused_notifications_are_counted_for_people(market: Market, prepaid: Any) -> None:
    for _ in range(3):
        market.client.post(market.notifications("muamla"), content=b"{}")
    code, out, _ = prepaid("refusals")
    assert code == 0
    assert out.split() == ["2026-09-21", "muamla", "signature_absent", "3"]
