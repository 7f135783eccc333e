"""The token identifier: whole UTC minutes since the base date, 24 bits (IEC 62055-41 6.3.5)."""

from datetime import date

from tokens.errors import TokenError

MINUTE_MS = 60_000
MINUTES_PER_DAY = 1_440
TID_LAST = 0xFFFFFF
# 00:01 of every day belongs to special tokens; ordinary vending steps over it (6.3.5.2).
RESERVED_MINUTE = 1
KEN_NEVER_EXPIRES = 255


def _midnight_ms(year: int) -> int:
    return (date(year, 1, 1).toordinal() - date(1970, 1, 1).toordinal()) * 86_400_000


# Each base date lasts until its 24 bits are used up; the last minutes are
# 2024-11-24 20:15, 2045-11-24 20:15 and 2066-11-24 20:15.
BASE_DATES_MS = {year: _midnight_ms(year) for year in (1993, 2014, 2035)}


def tid_minutes(at_ms: int, base_date: int) -> int:
    """The TID of a token issued at `at_ms` (UTC milliseconds), seconds cut off."""
    minutes = (at_ms - base_date_ms(base_date)) // MINUTE_MS
    _demand_in_range(minutes, base_date)
    return _after_reserved(minutes, base_date)


def next_tid(after: int, base_date: int) -> int:
    """The TID for one more token in the minute of `after`: the next minute that is not reserved."""
    base_date_ms(base_date)
    _demand_in_range(after, base_date)
    return _after_reserved(after + 1, base_date)


def tid_ms(tid: int, base_date: int) -> int:
    """The instant in UTC milliseconds at which the minute of `tid` begins."""
    _demand_in_range(tid, base_date)
    return base_date_ms(base_date) + tid * MINUTE_MS


def base_date_ms(base_date: int) -> int:
    """The instant of a base date, named by its year."""
    if base_date not in BASE_DATES_MS:
        raise TokenError("tid_out_of_range", f"Base date {base_date} is not 1993, 2014 or 2035.")
    return BASE_DATES_MS[base_date]


def is_reserved(tid: int) -> bool:
    return tid % MINUTES_PER_DAY == RESERVED_MINUTE


def key_period(tid: int) -> int:
    """The period of 65 536 minutes in which `tid` lies: what a KEN is compared with."""
    return tid >> 16


def is_expired(tid: int, ken: int) -> bool:
    """Whether a key with expiry number `ken` may no longer make or take a token of this TID.

    KEN 255 needs no exception: a 24-bit TID never lies in a later period.
    """
    return key_period(tid) > ken


def key_end_ms(ken: int, base_date: int) -> int:
    """The first instant at which a key with this KEN makes no token any more.

    KEN 255 ends with the base date: its 24 bits are used up.
    """
    return base_date_ms(base_date) + (ken + 1 << 16) * MINUTE_MS


def _after_reserved(tid: int, base_date: int) -> int:
    free = tid + 1 if is_reserved(tid) else tid
    _demand_in_range(free, base_date)
    return free


def _demand_in_range(tid: int, base_date: int) -> None:
    if not 0 <= tid <= TID_LAST:
        raise TokenError(
            "tid_out_of_range",
            f"Minute {tid} does not fit in 24 bits from base date {base_date}; "
            "move the meter to the base date in force with a key change.",
        )
