"""What a meter's word on a token command says of each token, and what follows from it.

A meter may tell every token's outcome, or that of the last one entered alone (`schemas.wire.Ack`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection

from schemas.commands import TOKEN_SUCCESSES
from schemas.telemetry import Ack
from schemas.wire import TokenResult
from store import key_changes
from store.sql import query
from tokens import apdu
from tokens.management import KEY_CHANGE_SUBCLASSES


@dataclass(frozen=True, slots=True)
class Kind:
    """Of a token of a command; both None for digits that are not ours any more."""

    cls: int | None
    subclass: int | None

    @property
    def is_section(self) -> bool:
        """It is one token of a key change set."""
        return self.cls == apdu.METER_SPECIFIC and self.subclass in KEY_CHANGE_SUBCLASSES


def results_of(conn: Connection, ack: Ack, count: int) -> list[TokenResult | None]:
    """One result per token of a command of `count` tokens, None where the meter did not tell it."""
    if ack.last_token is None:
        told: list[TokenResult | None] = [token["result"] for token in ack.tokens[:count]]
        return [*told, *[None] * (count - len(told))]
    last = ack.last_token["result"]
    if count > 1 and ack.state == "done" and last in TOKEN_SUCCESSES:
        rows = conn.execute(query("kinds_of_command_tokens"), {"command": ack.cmd})
        return [*taken([Kind(*row) for row in rows])[:-1], last]
    # On its way, the last one entered may be any; after a fault, nothing is known of the others.
    known = count == 1 or ack.state not in {"accepted", "executing"}
    return [*[None] * (count - 1), last if known else None]


def taken(kinds: Sequence[Kind]) -> list[TokenResult]:
    """What a meter answers that takes these tokens one after the other (IEC 62055-41)."""
    results: list[TokenResult] = []
    for place, kind in enumerate(kinds):
        begins = place == 0 or not kinds[place - 1].is_section
        ends = place == len(kinds) - 1 or not kinds[place + 1].is_section
        if not kind.is_section or ends:
            results.append("Accept")
        else:
            results.append("1stKCT" if begins else "2ndKCT")
    return results


def keep(conn: Connection, cmd: str, results: Sequence[TokenResult | None], now_ms: int) -> None:
    """Write down what was told, with what follows for keys and top-ups."""
    of = {"command": cmd, "results": list(results), "now_ms": now_ms}
    rows = conn.execute(query("answer_tokens"), of).fetchall()
    changes = [
        key_changes.SetResult(change, token_class, result)
        for _, change, token_class, result in rows
        if change is not None
    ]
    key_changes.take_results(conn, changes, now_ms)
    top_ups = sorted({top_up for top_up, _, _, _ in rows if top_up is not None})
    if top_ups:
        conn.execute(query("conclude_top_ups"), {"top_ups": top_ups, "now_ms": now_ms})
