"""Days that were summed before stay what the ledger says, whatever is posted to it later."""

from random import Random
from typing import Any

import pytest

from schemas.quantities import format_instant, parse_instant_ms
from store import reads
from store.balances import Balances, SeenBalance

Site = Any
HOUR_MS = 3_600_000
OPENED_MS = parse_instant_ms("2026-03-01T00:00:00Z")
STEPS = 60


class Household:
    """An account whose meter speaks every three hours; some of it comes late, or not at all."""

    def __init__(self, site: Site, random: Random) -> None:
        self.site, self.random = site, random
        self.customer = site.open()
        self.hour, self.base, self.opened_hour = 0, 100_000, 0
        self.missed: list[int] = []
        self.top_ups = 0
        # Readings of an account without credit take no short way, which writes the debits.
        assert site.pay(self.customer, "5000.00", "t0").status_code == 201

    def say(self, hour: int) -> None:
        at = format_instant(OPENED_MS + hour * HOUR_MS)
        self.site.read(self.customer, at, self.base + (hour - self.opened_hour) * 90)

    def go_on(self) -> None:
        for _ in range(self.random.randrange(1, 9)):
            self.hour += 3
            if self.random.random() < 0.15:
                self.missed.append(self.hour)
            else:
                self.say(self.hour)

    def catch_up(self) -> None:
        """A reading of some earlier day."""
        if self.missed:
            self.say(self.missed.pop(self.random.randrange(len(self.missed))))

    def pay_and_reverse(self) -> None:
        self.top_ups += 1
        number = f"t{self.top_ups}"
        assert self.site.pay(self.customer, "20.00", number).status_code in {201, 202}
        body = {"reason": "test"}
        self.site.signed("POST", f"/payments/{number}/reversals", body)

    def exchange(self) -> None:
        self.hour += 1
        at = format_instant(OPENED_MS + self.hour * HOUR_MS)
        self.customer.meter = self.site.exchange(self.customer, at)
        self.base, self.opened_hour, self.missed = 0, self.hour, []

    def sleep(self) -> None:
        """Midnights that the clockwork has not seen."""
        self.site.clock.now += self.random.randrange(30) * HOUR_MS


def said(site: Site, customer: Any) -> tuple[int, bytes]:
    path = f"/v1/accounts/{customer.number}/balance"
    answer = site.client.get(path, headers=customer.headers)
    return answer.status_code, answer.content


@pytest.mark.parametrize("seed", range(4))
def test_summed_days_are_those_of_the_ledger(
    site: Site, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    async def nothing(*_: object) -> SeenBalance | None:
        return None

    look, looked = reads.balance, 0

    def noting(*args: Any) -> reads.Balance:
        nonlocal looked
        looked += 1
        return look(*args)

    monkeypatch.setattr(reads, "balance", noting)
    random = Random(seed)
    home = Household(site, random)
    go_on, rest = home.go_on, (home.catch_up, home.pay_and_reverse, home.sleep, home.exchange)
    for _ in range(STEPS):
        random.choices((go_on, *rest), (12, 6, 1, 2, 1))[0]()
        plain = said(site, home.customer)
        assert plain[0] == 200
        with monkeypatch.context() as patch:
            patch.setattr(Balances, "find", nothing)
            assert said(site, home.customer) == plain
    # One of each two was looked up the long way on purpose.
    assert looked < STEPS * 1.8
    (debits,) = site.conn.execute("SELECT count(*) FROM energy_debit").fetchone()
    assert debits > STEPS, (debits, looked)
