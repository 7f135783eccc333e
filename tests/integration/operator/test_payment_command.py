"""`prepaid payment`, as somebody at a desk types it."""

import json
import sys
from dataclasses import replace
from typing import Any

import pytest

from prepaid.cli import main
from store import suspects
from store.vending import Payment
from tokens.security_module import SoftwareSecurityModule


@pytest.fixture
def prepaid(desk: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("PREPAID_DATABASE__URL", desk.url)
    monkeypatch.setattr(
        "prepaid.commands.payment.open_security_module", lambda _: SoftwareSecurityModule({})
    )

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prepaid", "payment", *words])
        monkeypatch.setenv("PREPAID_CLOCK", f"{10**13}:{desk.now}:1")
        monkeypatch.setattr("prepaid.clock.wall_ms", lambda: 10**13)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_a_desk_takes_cash_and_decides_what_becomes_of_payments(desk: Any, prepaid: Any) -> None:
    account, right = desk.open(), desk.open()
    meter, meant = desk.meter(account), desk.meter(right)
    code, out, _ = prepaid("cash", "desk-1", "1", meter, "50.13")
    assert code == 0
    assert out.splitlines()[-2:] == ["cash_rounding  0.070000", "counted  50.200000"]
    code, out, err = prepaid("cash", "desk-1", "2", meter, "50.13", "--counted", "50.00")
    assert (code, out) == (2, "")
    assert "50.200000: count that" in err
    assert prepaid("cash", "desk-1", "3", "1", "50")[0] == 2

    why = ("--by", "vera", "--reason", "one digit off")
    assert prepaid("move", "desk-1", "1", meant, *why)[0] == 0
    assert desk.state(right).balance_micro == 50_130_000
    code, out, _ = prepaid("reverse", "desk-1", "1", *why)
    assert (code, out) == (0, "0.000000 became debt\n")

    lost = Payment("bank", "9", "no-meter", 7 * 10**6, desk.now, bytes(32))
    for number in ("9", "10"):
        payment = replace(lost, partner_txn_id=number)
        suspects.receive(desk.conn, desk.terms, SoftwareSecurityModule({}), payment, desk.now)
    assert "unknown_meter" in prepaid("waiting")[1]
    first, second = (each["id"] for each in json.loads(prepaid("waiting", "--json")[1]))
    assert prepaid("credit", first, meter, *why)[0] == 0
    assert prepaid("return", second, *why)[1] == "returned\n"
    assert prepaid("return", second, *why)[1] == "was returned before\n"
    assert json.loads(prepaid("waiting", "--json")[1]) == []
    assert desk.state(account).balance_micro == 7 * 10**6
