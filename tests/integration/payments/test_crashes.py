"""Whoever dies at whatever step: money is neither lost nor doubled, and the state told is true."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from payments.simulated.channel import Plan
from payments.sweep import sweep_once
from store import payment_attempts, payment_words
from store.errors import Unavailable
from store.idempotency import Claim
from store.payment_words import Ears
from store.pool import make_pool
from store.terms import TermsCache
from tokens.errors import SecurityModuleAway
from tokens.keys import VendingKey
from tokens.security_module import SoftwareSecurityModule

Market = Any
CLAIM = Claim(None, "customer:1", "k", bytes(32))
INNER = SoftwareSecurityModule({("123456", 1): VendingKey(bytes(range(20)))})


class Died(BaseException):
    """The process is gone here: nothing of it runs any more."""


class Mortal:
    """A connector whose process dies before or after one of its calls, once."""

    def __init__(self, inner: Any, step: str) -> None:
        self._inner = inner
        self._when, self._call = step.split()
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name != self._call or self.dead:
            return value

        def call(*of: Any) -> Any:
            self.dead = True
            if self._when == "after":
                value(*of)
            raise Died

        return call


@contextmanager
def mortal_desk(market: Market, method: str, step: str) -> Iterator[Any]:
    """Another process, which dies at a step."""
    with market.make_desk() as desk:
        desk.connectors[method] = Mortal(desk.connectors[method], step)
        yield desk


def died(future: Any) -> bool:
    return isinstance(future.exception(timeout=30), Died)


@pytest.mark.parametrize("step", ["before start", "after start"])
@pytest.mark.parametrize("method", ["bankily", "masrvi", "click", "muamla", "moosyl"])
def test_dying_around_the_order_leaves_it_to_be_made_by_the_next(
    market: Market, method: str, step: str
) -> None:
    who = market.customer()
    with mortal_desk(market, method, step) as desk:
        attempt = record(market, desk, who, method)
        assert died(desk.go_on(attempt))
    assert market.show(who, attempt)["state"] == "started"
    market.sweep(after_s=6)
    shown = market.show(who, attempt)
    assert shown["going_on"] is not None
    assert shown["state"] == ("started" if method == "bankily" else "pending")


@pytest.mark.parametrize("step", ["before confirm", "after confirm"])
@pytest.mark.parametrize("deed", ["paid", "late_paid", "late_failed"])
def test_dying_around_the_payment_leaves_it_to_be_asked_about(
    market: Market, step: str, deed: Any
) -> None:
    who = market.customer()
    made = market.started(who, "bankily")
    market.bank.mischief.next_plans.append(Plan(deed))
    code = market.bank.make_passcode("36000001", "50")
    with mortal_desk(market, "bankily", step) as desk:
        asked = desk.confirm(
            made["id"], msisdn="+22236000001", passcode=SecretStr(code), by="customer:1",
            claim=CLAIM,
        )  # fmt: skip
        assert died(asked)
    # Asked, and no word yet: that is what the payer is told, and his supply waits for it.
    assert market.show(who, made["id"])["state"] == "pending"
    assert market.one("SELECT settled_ms IS NULL FROM unsettled_payment") is True
    market.sweep(after_s=65, rounds=5)
    taken = made["id"] in market.bank.taken
    assert taken == (step == "after confirm" and deed != "late_failed")
    assert market.counts() == ((1, 1, 0) if taken else (0, 0, 0))
    shown = market.show(who, made["id"])["state"]
    assert shown == ("token_issued" if taken else "failed" if "after" in step else "unknown")
    assert market.one("SELECT settled_ms IS NULL FROM unsettled_payment") is (shown == "unknown")
    market.laws_hold()


@pytest.mark.parametrize("step", ["before check", "after check"])
@pytest.mark.parametrize("method", ["bankily", "masrvi", "muamla"])
def test_dying_around_a_check_leaves_the_claim_to_lapse(
    market: Market, method: str, step: str
) -> None:
    who = market.customer()
    attempt = paid_and_not_heard(market, who, method)
    market.clock.advance(70)
    with mortal_desk(market, method, step) as desk, pytest.raises(Died):
        sweep_once(desk, market.pool)
    # Nobody else takes it while its claim holds; then somebody does.
    market.sweep()
    assert market.counts() == (0, 0, 0)
    market.sweep(after_s=120)
    assert market.show(who, attempt)["state"] == "token_issued"
    assert market.counts() == (1, 1, 0)


class Killing:
    """A security module under which the database's connections are cut, in the middle of a vend."""

    def __init__(self, kill: Callable[[], None]) -> None:
        self._kill = kill
        self.armed = 0

    def __getattr__(self, name: str) -> Any:
        if name == "issue_credit" and self.armed:
            self.armed -= 1
            self._kill()
        return getattr(INNER, name)


@pytest.fixture
def killing(database_url: str, as_owner: Callable[[str], str]) -> Killing:
    def kill() -> None:
        with psycopg.connect(as_owner(database_url), autocommit=True) as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'prepaid-api' AND datname = current_database()"
            )

    return Killing(kill)


@pytest.mark.parametrize("method", ["bankily", "masrvi", "click", "muamla", "moosyl"])
def test_the_database_is_cut_in_the_middle_of_the_vend(
    open_market: Any, killing: Killing, method: str
) -> None:
    with open_market(module=killing) as market:
        who = market.customer()
        killing.armed = 1
        if method == "bankily":
            made = market.started(who, method)
            code = market.bank.make_passcode("36000001", "50")
            answer = market.confirm(who, made["id"], code)
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            attempt = made["id"]
        else:
            attempt = paid_and_not_heard(market, who, method)
            statuses = notify(market, method, attempt)
            assert statuses[0] == (200 if method == "masrvi" else 503)
            if method == "masrvi":
                market.sweep()
        assert killing.armed == 0
        assert market.counts() == (0, 0, 0)
        assert market.show(who, attempt)["state"] == "pending"
        # The channel sends again what was not taken; of the bank we ask.
        if method in {"click", "muamla", "moosyl"}:
            assert notify(market, method, attempt) == [200]
        market.sweep(after_s=130)
        assert market.show(who, attempt)["state"] == "token_issued"
        assert market.counts() == (1, 1, 0)
        assert market.balance(who) == "50.000000"
        market.laws_hold()


class Away:
    """A security module that cannot be reached for a while."""

    away = True

    def __getattr__(self, name: str) -> Any:
        if name == "issue_credit" and self.away:
            raise SecurityModuleAway("no process listens")
        return getattr(INNER, name)


@pytest.mark.parametrize("method", ["bankily", "click", "moosyl"])
def test_without_a_security_module_the_money_is_received_and_credited_later(
    open_market: Any, method: str
) -> None:
    module = Away()
    with open_market(module=module) as market:
        who = market.customer()
        if method == "bankily":
            attempt = market.pay_by_bank(who)["id"]
        else:
            attempt = paid_and_not_heard(market, who, method)
            # It is kept: nobody needs to send it again.
            assert notify(market, method, attempt) == [200]
        shown = market.show(who, attempt)
        assert (shown["state"], shown["states"][-1]["owner"]) == ("received", "utility")
        assert market.counts() == (0, 0, 0)
        assert market.one("SELECT count(*) FROM unsettled_payment WHERE settled_ms IS NULL") == 1
        market.sweep(after_s=40, rounds=3)
        assert market.show(who, attempt)["state"] == "received"
        module.away = False
        market.sweep(after_s=40)
        shown = market.show(who, attempt)
        assert shown["state"] == "token_issued"
        assert [each["state"] for each in shown["states"]].count("received") == 1
        assert market.counts() == (1, 1, 0)
        assert market.one("SELECT count(*) FROM unsettled_payment WHERE settled_ms IS NULL") == 0
        # Paid when the channel said so, not when it was credited.
        assert shown["paid_at"] < shown["states"][-1]["at"]
        market.laws_hold()


def test_without_a_database_nothing_is_asked_of_anybody(market: Market) -> None:
    ears = Ears(TermsCache(), INNER, lambda: market.clock.now, lambda: market.clock.wall)
    away = make_pool("postgresql://127.0.0.1:1/none", min_size=0)
    with market.make_desk(away, ears) as desk:
        asked = desk.confirm(
            "x", msisdn="+22236000001", passcode=SecretStr("1234"), by="customer:1", claim=CLAIM
        )
        assert isinstance(asked.exception(timeout=30), Unavailable)
    assert market.bank.calls == {}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bank_at_its_worst_and_two_processes_agree_with_the_books(
    open_market: Any, seed: int
) -> None:
    with open_market(seed=seed, odd=70) as market, market.make_desk() as other:
        people = [market.customer() for _ in range(4)]
        paid = {}
        for place in range(16):
            who = people[place % 4]
            # What differs cannot be taken for the same payment twice.
            made = market.started(who, "bankily", f"{20 + place}.00")
            code = market.bank.make_passcode("36000001", made["going_on"]["amount"])
            market.confirm(who, made["id"], code)
            paid[made["id"]] = who
            market.clock.advance(3)
            sweep_once(other, market.pool)
        for _ in range(12):
            market.clock.advance(61)
            sweep_once(other, market.pool)
            market.sweep()
        taken = market.bank.taken
        assert 0 < len(taken) < 16
        credited = {
            row[0]: row[1]
            for row in market.conn.execute(
                "SELECT p.id, t.amount_micro FROM payment_attempt p "
                "JOIN top_up t ON t.id = p.top_up_id"
            )
        }
        assert credited == {each: int(amount * 1_000_000) for each, amount in taken.items()}
        for attempt, who in paid.items():
            state = market.show(who, attempt)["state"]
            assert state in ({"token_issued"} if attempt in taken else {"failed", "unknown"})
        assert market.counts()[0] == len(taken)
        market.laws_hold()


def test_a_person_ends_what_nobody_knows_once(market: Market) -> None:
    who = market.customer()
    market.bank.mischief.next_plans.append(Plan("nothing", "cut"))
    lost = market.pay_by_bank(who)["id"]
    market.bank.mischief.next_plans.append(Plan("nothing", "cut"))
    gone = market.pay_by_bank(who, "20.00")["id"]
    conn, ears = market.conn, market.ears
    with pytest.raises(Exception, match="why"):
        payment_words.decide(conn, ears, lost, reference="B-1", who="vera", reason=" ")
    for attempt, reference in ((lost, "B-1"), (gone, None)):
        payment_words.decide(
            conn, ears, attempt, reference=reference, who="vera", reason="the daily file"
        )
    assert market.show(who, lost)["state"] == "token_issued"
    assert market.show(who, gone)["state"] == "failed"
    with pytest.raises(Exception, match="nothing is left"):
        payment_words.decide(conn, ears, lost, reference=None, who="vera", reason="again")
    assert market.counts() == (1, 1, 0)
    logged = market.conn.execute(
        "SELECT who, subject FROM audit_log WHERE action = 'payment.decide' ORDER BY id"
    ).fetchall()
    assert logged == [("vera", f"payment:bankily/{lost}"), ("vera", f"payment:bankily/{gone}")]


def record(market: Market, desk: Any, who: Any, method: str) -> str:
    """An attempt that nobody went on with yet."""
    return str(
        desk.start(
            market.conn,
            account_id=who.account_id,
            currency="MRU",
            method=method,
            started_by="customer:1",
            key="k",
            request_sha256=bytes(32),
            amount_micro=50_000_000,
            unusual_confirmed=False,
            msisdn=None,
            counted_micro=None,
        )
    )


def paid_and_not_heard(market: Market, who: Any, method: str) -> str:
    """An attempt whose money the channel has, and of which we know nothing yet."""
    made = market.started(who, method)
    attempt = str(made["id"])
    if method == "bankily":
        market.bank.mischief.next_plans.append(Plan("paid", "cut"))
        code = market.bank.make_passcode("36000001", "50")
        market.confirm(who, attempt, code)
    elif method in {"masrvi", "click"}:
        wallet = market.wallet if method == "masrvi" else market.silent
        wallet.open_page(made["going_on"])
        wallet.confirm(attempt)
    else:
        getattr(market, method).pay(attempt)
    assert payment_attempts.find(market.conn, attempt).state in {"pending", "unknown"}
    return attempt


def notify(market: Market, method: str, attempt: str) -> list[int]:
    """What we answered to one notification."""
    address = market.notifications(method)
    if method in {"masrvi", "click"}:
        wallet = market.wallet if method == "masrvi" else market.silent
        return list(wallet.notify(address, wallet.notifications(attempt)))
    aggregator = getattr(market, method)
    body = aggregator.notification(attempt)
    sent = market.client.post(address, content=body, headers=aggregator.headers(body))
    return [sent.status_code]
