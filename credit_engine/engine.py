"""`advance`: facts and terms in, postings, verdicts and the supply out (rating contract)."""

from collections.abc import Iterable

from credit_engine.facts import Fact
from credit_engine.outcome import Outcome
from credit_engine.position import Position
from credit_engine.terms import Terms


def advance(terms: Terms, position: Position, facts: Iterable[Fact], until_ms: int) -> Outcome:
    """Rate all facts from `position` up to `until_ms`."""
    raise NotImplementedError
