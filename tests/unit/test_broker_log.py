"""What mosquitto 2.0 really wrote, and what is read from it."""

from pathlib import Path

import pytest

from prepaid.trust.broker_log import TRIM_BYTES, LogFile, Seen, Tally, read_line
from store.trust import Refused

METER = "37000000017"


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (
            f"1795: Denied PUBLISH from {METER} (d0, q1, r0, m2, 'pm/v1/m/B/up/reading', ... (1))",
            Seen(METER, "denied_publish", "pm/v1/m/B/up/reading"),
        ),
        (
            f"2026-11-22T23:03:23: {METER} 1 pm/v1/m/37000000025/dn/+",
            Seen(METER, "foreign_subscription", "pm/v1/m/37000000025/dn/+"),
        ),
        (f"{METER} 0 #", Seen(METER, "foreign_subscription", "#")),
        ("claim.batch-1 1 pm/v1/m/+/dn/+",
         Seen("claim.batch-1", "foreign_subscription", "pm/v1/m/+/dn/+")),
        (f"1: Sending CONNACK to {METER} (0, 5)", Seen(METER, "login_refused", "")),
        (f"1: Sending CONNACK to {METER} (0, 135)", Seen(METER, "login_refused", "")),
        (
            "1: OpenSSL Error[0]: error:0A000086:SSL routines::certificate verify failed",
            Seen("", "certificate_refused", ""),
        ),
        (
            "1: OpenSSL Error[0]: error:0A0000C7:SSL routines::peer did not return a certificate",
            Seen("", "certificate_refused", ""),
        ),
        (
            "1: OpenSSL Error[1]: error:0A000119:SSL routines::decryption failed or bad record mac",
            Seen("", "key_refused", ""),
        ),
        (f"1: {METER} 1 pm/v1/m/{METER}/dn/+", None),
        ("1: claim.batch-1 1 pm/v1/e/claim.batch-1/cert", None),
        ("1: prepaid-ingest-1 1 $share/ingest/pm/v1/+/+/up/#", None),
        (f"1: Sending CONNACK to {METER} (1, 0)", None),
        (f"1: Received PUBLISH from {METER} (d0, q1, r0, m1, 'pm/v1/x', ... (1 bytes))", None),
        ("1: OpenSSL Error[0]: error:0A000126:SSL routines::unexpected eof while reading", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_refusal_is_read_and_nothing_else(line: str, seen: Seen | None) -> None:
    assert read_line(line) == seen


def test_a_tally_counts_by_device_and_reason_and_keeps_what_could_not_be_recorded() -> None:
    tally = Tally()
    for detail in ("first", "last"):
        tally.add(Seen(METER, "denied_publish", detail))
    taken = tally.take()
    assert taken == [Refused(METER, "broker:denied_publish", 2, "last")]
    assert tally.take() == []
    tally.give_back(taken)
    tally.add(Seen(METER, "denied_publish", "newer"))
    assert tally.take() == [Refused(METER, "broker:denied_publish", 3, "newer")]


def test_a_log_is_read_from_its_end_by_whole_lines_over_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    log = LogFile(path)
    with path.open("a") as file:
        file.write("one\ntw")
        file.flush()
        assert list(log.lines()) == ["one"]
        file.write("o\n")
    assert list(log.lines()) == ["two"]
    path.rename(tmp_path / "log.1")
    assert list(log.lines()) == []
    path.write_text("three\n")
    assert list(log.lines()) == ["three"]


def test_a_log_that_was_read_is_kept_small_while_its_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    log = LogFile(path, trim=True)
    with path.open("ab", buffering=0) as writer:
        writer.write(b"x" * TRIM_BYTES + b"\n")
        assert len(list(log.lines())) == 1
        assert path.stat().st_size == 0
        writer.write(b"after\n")
        assert list(log.lines()) == ["after"]
