"""One track of a payment, from the payer to "power is back": each step with its time and its owner.

The owner of a step is who makes it happen, so that whoever asks knows whom to ask next. What nobody
knows is awaited, never failed: a meter that has not answered has not refused. Law: at most one step
is awaited or refused, all before it are over, and nothing after it has happened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import Connection

from schemas.commands import CommandState
from store import appeals, quotes, top_ups
from store.appeals import Appeal
from store.errors import NotFound
from store.quotes import Named
from store.sql import query
from store.suspects import Suspect
from store.top_ups import TopUp, TopUpState

Owner = Literal["payer", "bank", "utility", "meter"]
StepName = Literal[
    "paid",
    "received",
    "checked",
    "credited",
    "moved",
    "token_issued",
    "delivered",
    "accepted",
    "on_supply",
    "returned",
    "reversed",
]
StepState = Literal["done", "awaited", "refused", "later", "not_needed"]
PaymentState = TopUpState | Literal["suspect"]

# What a payer may be told about a payment that waits; the details are the operators'.
_CHECKS = {
    "unknown_meter": "no account has this meter: ask the payer for the number",
    "unusual_amount": "the amount is far from the usual one: ask the payer what was meant",
    "paid_twice": "the same amount was paid for this meter just before: ask the payer if both are "
    "meant",
    "future": "paid_at is yet to come: set your clock",
}
_SENDING: dict[CommandState | None, str] = {
    None: "it is on the receipt: type it in at the meter",
    "queued": "it waits for its turn to be sent; it can be typed in at the meter",
    "expired": "the meter was not reached: it is sent again, and can be typed in at the meter",
    "unknown": "nobody knows whether the meter has it: it is sent again and counts once",
}
_ENTERING: dict[CommandState | None, str] = {
    "sent": "sent; the meter has not answered yet",
    "unknown": "sent; nobody knows whether the meter took it: it is sent again and counts once",
    "expired": "the meter did not answer: it can be typed in at the meter, and counts once",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `at_ms` once it is done or refused. `note` is a sentence for people."""

    step: StepName
    owner: Owner
    state: StepState
    at_ms: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Carried:
    """What is known of a top-up beside its times (`track_of_top_up`)."""

    reconnects: bool
    takes_tokens: bool
    command_state: CommandState | None
    became_debt_micro: int | None
    moved_to: str | None


@dataclass(frozen=True, slots=True)
class Track:
    """A payment as it was first answered and where it is now. `top_up` is None while it waits or
    when it went back; `moved`: the one that took its place at another meter. `currency`: None
    where nobody has the meter.
    """

    top_up: TopUp | None
    suspect: Suspect | None
    moved: TopUp | None
    became_debt_micro: int | None
    quote: Named | None
    appeal: Appeal | None
    currency: str | None
    steps: Sequence[Step]

    @property
    def waits_for(self) -> Owner | None:
        """Who acts next; None: the payment has arrived, or went back."""
        return next(
            (each.owner for each in self.steps if each.state in {"awaited", "refused"}), None
        )

    @property
    def state(self) -> PaymentState:
        """The state of now, in the words of the contract."""
        now = self.moved or self.top_up
        if now is not None:
            return now.state
        assert self.suspect is not None, "it was credited, or it is held"
        return "suspect" if self.suspect.decision is None else "reversed"

    def states(self) -> list[tuple[PaymentState, int]]:
        """Every state reached, each with its time."""
        found: list[tuple[PaymentState, int]] = []
        held = self.suspect
        if held is not None:
            found.append(("received", held.held_ms))
            found.append(("suspect", held.held_ms))
            if held.decision == "returned" and held.decided_ms is not None:
                found.append(("reversed", held.decided_ms))
        now = self.moved or self.top_up
        if now is not None:
            for state, at_ms in now.states():
                if held is None or state != "received":
                    found.append((state, at_ms))
        return found


def of_payment(conn: Connection, channel: str, partner_txn_id: str) -> Track:
    """The track of a channel's payment by its own number. Errors: NotFound."""
    number = {"channel": channel, "partner_txn_id": partner_txn_id}
    row = conn.execute(query("suspect_by_number"), number).fetchone()
    held = None if row is None else Suspect(*row[:-1])
    try:
        top_up = top_ups.top_up_by_payment(conn, channel, partner_txn_id)
    except NotFound:
        if held is None:
            raise
        named = quotes.named_by(conn, channel, partner_txn_id)
        currency = None if row is None else row[-1]
        return Track(None, held, None, None, named, None, currency, steps_of_held(held))
    return of_top_up(conn, top_up, held)


def of_top_up(
    conn: Connection, top_up: TopUp, held: Suspect | None = None, before: Sequence[Step] = ()
) -> Track:
    """The track of a top-up; `before`: steps of its channel that came first, in their order."""
    carried = _carried(conn, top_up.id)
    last, now = top_up, carried
    while now.moved_to is not None:
        last = top_ups.top_up_by_payment(conn, last.channel, now.moved_to)
        now = _carried(conn, last.id)
    steps = [*before, *steps_of(top_up, carried, held)]
    if carried.moved_to is not None:
        steps += _after_credit(last, now)
    return Track(
        top_up=top_up,
        suspect=held,
        moved=None if carried.moved_to is None else last,
        became_debt_micro=now.became_debt_micro,
        quote=quotes.named_by(conn, top_up.channel, top_up.partner_txn_id),
        appeal=appeals.newest(conn, last.id) or appeals.newest(conn, top_up.id),
        currency=top_up.currency,
        steps=steps,
    )


def found(
    conn: Connection,
    *,
    payment: str | None = None,
    number: str | None = None,
    channel: str | None = None,
    meter: str | None = None,
    account: str | None = None,
    centres: Sequence[int] | None,
    before_id: str | None = None,
    limit: int,
) -> list[tuple[str, str, str]]:
    """(our id, channel, number) of payments newest first, for operators of these centres; one more
    than `limit` when there is a next page.
    """
    of = {
        "id": payment,
        "number": number,
        "channel": channel,
        "meter": meter,
        "account": account,
        "centres": None if centres is None else list(centres),
        "before": before_id,
        "limit": limit + 1,
    }
    return conn.execute(query("payments_found"), of).fetchall()


def steps_of_held(held: Suspect) -> list[Step]:
    """A payment that is not credited: it waits for a person, or went back."""
    steps = [
        Step("paid", "payer", "done", held.paid_ms),
        Step("received", "bank", "done", held.held_ms),
    ]
    if held.decision is None:
        return [
            *steps,
            Step("checked", "utility", "awaited", None, _CHECKS.get(held.suspicion)),
            Step("credited", "utility", "later"),
        ]
    return [
        *steps,
        Step("checked", "utility", "done", held.decided_ms),
        Step("returned", "utility", "done", held.decided_ms, "the money goes back to the payer"),
    ]


def steps_of(top_up: TopUp, carried: Carried, held: Suspect | None = None) -> list[Step]:
    """The steps of a top-up; of one that was moved, those up to the move."""
    received_ms = top_up.credited_ms if held is None else held.held_ms
    steps = [
        Step("paid", "payer", "done", top_up.paid_ms),
        Step("received", "bank", "done", received_ms),
    ]
    if held is not None:
        steps.append(Step("checked", "utility", "done", held.decided_ms))
    steps.append(Step("credited", "utility", "done", top_up.credited_ms))
    if carried.moved_to is not None:
        return [*steps, Step("moved", "utility", "done", top_up.reversed_ms)]
    return [*steps, *_after_credit(top_up, carried)]


def _after_credit(top_up: TopUp, carried: Carried) -> list[Step]:
    if top_up.reversed_ms is not None:
        note = None
        if carried.became_debt_micro:
            note = "a part was consumed already and is debt now"
        return [Step("reversed", "utility", "done", top_up.reversed_ms, note)]
    steps = [*_token_steps(top_up, carried), _supply_step(top_up, carried)]
    first = next((n for n, each in enumerate(steps) if each.state in {"awaited", "refused"}), None)
    if first is None:
        return steps
    return [*steps[: first + 1], *(_put_off(each) for each in steps[first + 1 :])]


def _put_off(step: Step) -> Step:
    """What comes after the step that is awaited."""
    return step if step.state == "not_needed" else Step(step.step, step.owner, "later")


def _token_steps(top_up: TopUp, carried: Carried) -> list[Step]:
    if top_up.token_issued_ms is None:
        # Issued in the transaction that credits, or not at all: free energy, or too small.
        note = "no token is needed" if carried.takes_tokens else "this meter takes no tokens"
        names: tuple[tuple[StepName, Owner], ...] = (
            ("token_issued", "utility"),
            ("delivered", "utility"),
            ("accepted", "meter"),
        )
        return [Step(name, owner, "not_needed", None, note) for name, owner in names]
    issued = Step("token_issued", "utility", "done", top_up.token_issued_ms)
    if top_up.accepted_ms is not None:
        delivered = Step("delivered", "utility", "done", top_up.delivered_ms)
        if top_up.delivered_ms is None:
            delivered = Step("delivered", "payer", "not_needed", None, "typed in at the meter")
        return [issued, delivered, Step("accepted", "meter", "done", top_up.accepted_ms)]
    if top_up.rejected_ms is not None:
        note = "the meter refused the token: the utility gives another"
        delivered = Step("delivered", "utility", "done", top_up.delivered_ms or top_up.rejected_ms)
        return [issued, delivered, Step("accepted", "utility", "refused", top_up.rejected_ms, note)]
    state = carried.command_state
    if top_up.delivered_ms is None:
        waits = Step("delivered", "utility", "awaited", None, _SENDING.get(state, _SENDING[None]))
        return [issued, waits, Step("accepted", "meter", "later")]
    entering = _ENTERING.get(state, _ENTERING["sent"])
    return [
        issued,
        Step("delivered", "utility", "done", top_up.delivered_ms),
        Step("accepted", "meter", "awaited", None, entering),
    ]


def _supply_step(top_up: TopUp, carried: Carried) -> Step:
    if not carried.reconnects:
        return Step("on_supply", "meter", "not_needed", top_up.on_supply_ms, "supply was not off")
    if top_up.on_supply_ms is not None:
        return Step("on_supply", "meter", "done", top_up.on_supply_ms)
    return Step("on_supply", "meter", "awaited", None, "the meter has not said that it is on")


def _carried(conn: Connection, top_up: str) -> Carried:
    row = conn.execute(query("track_of_top_up"), {"top_up": top_up}).fetchone()
    assert row is not None, "top-ups are never deleted"
    return Carried(*row)
