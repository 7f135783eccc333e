"""What our own books say about a row of digits, where PREPAID_DATABASE__URL names them."""

import psycopg

from prepaid.settings import Settings
from schemas.quantities import format_instant
from store.issuing import Issued, find_issued
from tokens.codec import TOKEN_DIGITS

CONNECT_TIMEOUT_S = 5


def issued_by_us(digits: str) -> dict[str, str]:
    """`issued_by_us`: when, to which meter and what it said; `no` for digits that are not ours.

    Empty without a database in the settings. One that does not answer spoils nothing else.
    """
    settings = Settings()
    if settings.database.url is None or len(digits) != TOKEN_DIGITS:
        return {}
    try:
        with psycopg.connect(
            settings.database_url(), autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
        ) as conn:
            found = find_issued(conn, digits)
    except psycopg.Error:
        return {"issued_by_us": "unknown: the database does not answer; see `prepaid doctor`"}
    return {"issued_by_us": "; ".join(_line(each) for each in found) or "no"}


def _line(issued: Issued) -> str:
    text = f"on {format_instant(issued.issued_ms)} to meter {issued.meter}"
    if issued.receipt_number is not None:
        text += f", receipt {issued.receipt_number}"
    if issued.result is not None and issued.answered_ms is not None:
        text += f"; the meter said {issued.result} on {format_instant(issued.answered_ms)}"
    if issued.replaced_ms is not None:
        text += f"; replaced on {format_instant(issued.replaced_ms)} by another token"
    return text
