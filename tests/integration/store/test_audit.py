"""The audit passes what the system wrote, whatever happened, and finds what was planted."""

from prepaid.commands.audit import lines
from store.audit import audit


def test_a_month_of_everything_passes(busy):
    checks = audit(busy.conn)
    assert lines(checks)[-1] == f"{len(checks)} passed, 0 failed"
    assert all(check.checked for check in checks)
