"""Days that were summed before stay what the ledger says, whatever is posted to it later."""

from random import Random
from typing import Any

import pytest

from schemas.quantities import format_instant, parse_instant_ms
from store import balances, forecasts, reads
from store.balances import Balances, SeenBalance
from store.settlement import read_account

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
        # Of no even load: what a reading between two others says changes what was charged.
        hours = hour - self.opened_hour
        self.site.read(self.customer, at, self.base + hours * 90 + hours % 5 * 40)

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


def summed(site: Site, account_id: int) -> tuple[int, ...]:
    """Each finished day's cost from all of the ledger."""
    state = read_account(site.conn, account_id)
    assert state is not None
    agreed = site.terms.get(site.conn, account_id, state.terms_revision)
    return forecasts.usage(site.conn, account_id, agreed, state).costs_micro


@pytest.mark.parametrize("seed", range(4))
def test_days_are_summed_as_by_the_ledger_and_answered_as_by_the_route(
    site: Site, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    async def nothing(*_: object) -> SeenBalance | None:
        return None

    known: list[tuple[int, ...]] = []

    def noting(agreed: Any, outcome: Any, costs: Any, supply: Any) -> reads.Balance:
        known.append(tuple(costs))
        return reads.balance_of(agreed, outcome, costs, supply)

    monkeypatch.setattr(balances, "balance_of", noting)
    random = Random(seed)
    home = Household(site, random)
    go_on, rest = home.go_on, (home.catch_up, home.pay_and_reverse, home.sleep, home.exchange)
    plain = 0
    for _ in range(STEPS):
        random.choices((go_on, *rest), (12, 6, 1, 2, 1))[0]()
        known.clear()
        answer = said(site, home.customer)
        assert answer[0] == 200
        if known:
            plain += 1
            assert known == [summed(site, home.customer.account_id)]
        with monkeypatch.context() as patch:
            patch.setattr(Balances, "find", nothing)
            assert said(site, home.customer) == answer
    assert plain > STEPS // 3
    (debits,) = site.conn.execute("SELECT count(*) FROM energy_debit").fetchone()
    assert debits > STEPS
