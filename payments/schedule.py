"""When a channel is asked again about a payment that is not known: pure.

At first quickly, for the payer waits at the screen; then by the minute; after a day the channel's
daily file decides, with a person.
"""

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
GIVEN_UP_MS = 24 * HOUR_MS
FIRST_MS = (5 * SECOND_MS, 15 * SECOND_MS, 30 * SECOND_MS, 60 * SECOND_MS)
# (until this age, every so often)
THEN_MS = ((15 * MINUTE_MS, MINUTE_MS), (2 * HOUR_MS, 5 * MINUTE_MS), (GIVEN_UP_MS, 15 * MINUTE_MS))


def next_check_ms(age_ms: int) -> int | None:
    """How long to wait from now, for an attempt that was asked `age_ms` ago; None: ask no more.

    The first checks are 5, 15, 30 and 60 seconds after the asking.
    """
    for at_ms in FIRST_MS:
        if age_ms < at_ms:
            return at_ms - age_ms
    for until_ms, every_ms in THEN_MS:
        if age_ms < until_ms:
            return every_ms
    return None
