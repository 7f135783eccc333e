"""The security module as a process: the same tokens, no keys, limits inside, and a sudden death."""

import os
import secrets
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from prepaid.commands import sts_campaign
from prepaid.security_modules import open_security_module
from prepaid.security_process import frames
from prepaid.security_process.client import RemoteSecurityModule
from prepaid.security_process.limits import (
    MAX_FAILED_VERIFICATIONS,
    Counted,
    LimitedSecurityModule,
    Limits,
    VendCounter,
)
from prepaid.security_process.server import SecurityModuleServer, alone, perform
from prepaid.settings import Sts
from schemas.errors import DomainError
from schemas.quantities import parse_instant_ms
from tokens.errors import LimitReached, SecurityModuleAway, TokenError
from tokens.key_file import RANDOM_OCTETS, seal
from tokens.keys import KeyAttributes, VendingKey
from tokens.security_module import SoftwareSecurityModule

ROOT = Path(__file__).parents[3]
NOON = parse_instant_ms("2026-03-02T12:00:00Z")
PASSPHRASE = "correct horse"
# The same as the desk's.
VENDING_KEYS = {
    ("123456", 1): VendingKey(bytes(range(1, 21))),
    ("123456", 2): VendingKey(bytes(range(21, 41))),
}
HELD = KeyAttributes(sgc="123456", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=11, dkga=4)
PAN = "600727000000000009"
CREDIT = {"subclass": 0, "amount": 256, "tid_minutes": 6_400_000, "rnd": 5}
LIMITS = Limits(
    max_credit=1000, max_currency=0, max_vends=3, max_failed_verifications=2, interval_ms=60_000
)


@dataclass
class Running:
    """A process that this test started."""

    environment: dict[str, str]
    path: Path
    options: tuple[str, ...] = ()
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prepaid", "security-module", *self.options],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self, number: int) -> str:
        """End it by a signal; returns what it logged."""
        assert self.process is not None
        self.process.send_signal(number)
        _, logged = self.process.communicate()
        assert self.process.returncode == (-number if number == signal.SIGKILL else 0)
        self.process = None
        return logged


@pytest.fixture
def running(tmp_path):
    key_file = tmp_path / "keys.sts"
    key_file.write_bytes(seal(VENDING_KEYS, PASSPHRASE, secrets.token_bytes(RANDOM_OCTETS)))
    key_file.chmod(0o600)
    path = tmp_path / "module.sock"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PREPAID_STS__KEY_FILE": str(key_file),
        "PREPAID_STS__KEY_PASSPHRASE": PASSPHRASE,
        "PREPAID_STS__SOCKET": str(path),
    }
    made = Running(environment, path, ("--max-vends", "5"))
    made.start()
    yield made
    if made.process is not None:
        made.end(signal.SIGTERM)


def test_a_sale_through_the_process_outlives_its_sudden_death(desk, running, key_watch):
    """Killed between two sales: the second is refused whole, and sold when it is there again."""
    desk.module = remote = RemoteSecurityModule(running.path)
    box = desk.meter()
    desk.vend(box)
    running.end(signal.SIGKILL)
    with pytest.raises(SecurityModuleAway) as away:
        desk.vend(box, txn="again")
    assert away.value.code == "security_module_away"
    assert "prepaid security-module" in str(away.value)
    assert desk.conn.execute("SELECT count(*) FROM top_up").fetchone() == (1,), "no money was taken"
    running.start()
    sold = desk.vend(box, txn="again")
    assert desk.vend(box, txn="again") == sold
    assert [results for command in box.take(NOON) for results in command] == ["Accept", "Accept"]
    # Two sales here, and the count of the one before the death is still there.
    for _ in range(3):
        desk.vend(box)
    with pytest.raises(DomainError) as full:
        desk.vend(box)
    assert full.value.code == "limit_reached"
    assert isinstance(full.value, LimitReached)
    assert 0 < full.value.retry_after_s <= 3600
    remote.close()
    logged = running.end(signal.SIGTERM)
    assert logged.count("issued") == 4
    for digits, meter in [(row[0], box.meter_pan) for row in digits_of(desk)]:
        assert digits not in logged
        assert meter in logged
    assert not key_watch.found_in(logged)
    assert not running.path.exists()


def digits_of(desk):
    return desk.conn.execute("SELECT digits FROM token").fetchall()


def test_the_command_line_asks_the_process_and_needs_no_key(desk, running, monkeypatch):
    assert stat.S_IMODE(running.path.stat().st_mode) == 0o600
    with pytest.raises(DomainError, match="served already"), alone(running.path):
        pass
    monkeypatch.setenv("PREPAID_STS__SOCKET", str(running.path))
    monkeypatch.setenv("PREPAID_DATABASE__URL", desk.url)
    adopt = ["adopt", "--sgc", "123456", "--krn", "2", "--by", "vera"]
    done = CliRunner().invoke(sts_campaign.app, adopt)
    assert VENDING_KEYS["123456", 2].check_value in done.stdout
    running.end(signal.SIGTERM)
    done = CliRunner().invoke(sts_campaign.app, adopt)
    assert isinstance(done.exception, SecurityModuleAway)


def test_the_setting_chooses_the_process_before_keys_of_our_own(tmp_path):
    sts = Sts(socket=tmp_path / "module.sock", key_file=tmp_path / "keys.sts")
    assert isinstance(open_security_module(sts), RemoteSecurityModule)


@contextmanager
def served(tmp_path, module, users=None):
    path = tmp_path / "here.sock"
    known = frozenset({os.geteuid()}) if users is None else users
    with alone(path), SecurityModuleServer(path, module, known) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        remote = RemoteSecurityModule(path)
        yield remote
        remote.close()
        server.shutdown()
        thread.join()


CALLS = [
    lambda m: m.issue_credit(PAN, HELD, **CREDIT),
    lambda m: m.issue_credit(PAN, HELD, **CREDIT | {"subclass": 4, "amount": -(10**30)}),
    lambda m: m.issue_management(
        PAN, HELD, subclass=1, fields={"register": 65535}, tid_minutes=9, rnd=0
    ),
    lambda m: m.issue_key_change(PAN, HELD, replace(HELD, krn=2), tid_minutes=9),
    lambda m: m.issue_key_change(
        PAN, replace(HELD, ea=7), replace(HELD, ea=7, krn=2), tid_minutes=9, triplet=True
    ),
    lambda m: m.verify(PAN, HELD, m.issue_credit(PAN, HELD, **CREDIT)),
    lambda m: m.key_check_value("123456", 2),
]


@pytest.mark.parametrize("call", CALLS)
def test_every_operation_gives_what_the_module_gives(tmp_path, call):
    here = SoftwareSecurityModule(VENDING_KEYS)
    with served(tmp_path, here) as there:
        assert call(there) == call(here)


REFUSED = [
    lambda m: m.issue_credit(PAN, replace(HELD, krn=9), **CREDIT),
    lambda m: m.issue_credit(PAN, HELD, **CREDIT | {"amount": 10**12}),
    lambda m: m.issue_credit("600727000000000008", HELD, **CREDIT),
    lambda m: m.issue_management(PAN, HELD, subclass=3, fields={}, tid_minutes=9, rnd=0),
    lambda m: m.verify(PAN, HELD, "1" * 20),
    lambda m: m.key_check_value("000000", 1),
]


@pytest.mark.parametrize("call", REFUSED)
def test_every_refusal_arrives_as_it_was_made(tmp_path, call):
    here = SoftwareSecurityModule(VENDING_KEYS)
    with pytest.raises(TokenError) as made:
        call(here)
    with served(tmp_path, here) as there, pytest.raises(TokenError) as came:
        call(there)
    assert (came.value.code, str(came.value)) == (made.value.code, str(made.value))


def test_no_section_of_a_key_leaves_the_process(tmp_path):
    here = SoftwareSecurityModule(VENDING_KEYS)
    with served(tmp_path, here) as there:
        for digits in there.issue_key_change(PAN, HELD, replace(HELD, krn=2), tid_minutes=9):
            kept, shown = here.verify(PAN, HELD, digits), there.verify(PAN, HELD, digits)
            hidden = set(kept.fields) - set(shown.fields)
            assert len(hidden) == 1
            assert hidden <= {"nkho", "nklo", "nkmo1", "nkmo2"}


def test_a_peer_of_another_user_is_refused(tmp_path):
    module = SoftwareSecurityModule(VENDING_KEYS)
    nobody_here = frozenset({os.geteuid() + 1})
    with served(tmp_path, module, nobody_here) as there, pytest.raises(TokenError) as refusal:
        there.issue_credit(PAN, HELD, **CREDIT)
    assert refusal.value.code == "peer_refused"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"op":"reveal_key"}', b'{"op":"verify"}', b"\xff", b"[" * 4000]
)
def test_what_is_no_request_is_refused_and_the_next_one_is_answered(tmp_path, body):
    with served(tmp_path, SoftwareSecurityModule(VENDING_KEYS)) as there:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(tmp_path / "here.sock"))
            raw.sendall(struct.pack(">I", len(body)) + body)
            answer = frames.Answer.model_validate_json(frames.receive(raw) or b"")
            assert answer.refused is not None
            assert answer.refused.code == "request_invalid"
        assert there.key_check_value("123456", 1)


def test_a_frame_that_is_too_long_ends_the_connection(tmp_path):
    with served(tmp_path, SoftwareSecurityModule(VENDING_KEYS)) as there:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(tmp_path / "here.sock"))
            raw.sendall(struct.pack(">I", frames.FRAME_OCTETS_MAX + 1))
            assert frames.receive(raw) is None
        assert there.key_check_value("123456", 1)


def test_a_process_that_hangs_is_away(tmp_path):
    path = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        with pytest.raises(SecurityModuleAway, match="no answer in time"):
            RemoteSecurityModule(path, answer_s=0.05).key_check_value("123456", 1)


def test_a_defect_inside_says_nothing_of_what_it_was_asked(tmp_path, capsys):
    class Broken(SoftwareSecurityModule):
        def key_check_value(self, sgc, krn):
            raise RuntimeError(f"secret of {sgc}")

    with served(tmp_path, Broken(VENDING_KEYS)) as there:
        with pytest.raises(SecurityModuleAway) as refusal:
            there.key_check_value("123456", 1)
        assert there.issue_credit(PAN, HELD, **CREDIT)
    assert "secret" not in str(refusal.value) + "".join(capsys.readouterr())


def limited(tmp_path, clock, **changed):
    module = SoftwareSecurityModule(VENDING_KEYS)
    counter = VendCounter(tmp_path / "module.count")
    return LimitedSecurityModule(module, replace(LIMITS, **changed), counter, lambda: clock[0])


def code_of(call, *given):
    try:
        call(*given)
    except TokenError as error:
        return error.code
    return "done"


def test_an_interval_has_its_vends_whatever_is_made_and_however_often_it_begins_anew(tmp_path):
    clock = [NOON]
    assert [code_of(call, limited(tmp_path, clock)) for call in (CALLS[0], CALLS[2], CALLS[3])] == [
        "done"
    ] * 3
    for later_ms in (0, 1, 999, 1000, LIMITS.interval_ms - 1):
        clock[0] = NOON + later_ms
        with pytest.raises(LimitReached) as full:
            CALLS[0](limited(tmp_path, clock))
        # Who waits as long as he is told comes right after the interval.
        over_ms = clock[0] + full.value.retry_after_s * 1000 - NOON
        assert 0 <= over_ms - LIMITS.interval_ms < 1000
    clock[0] = NOON - 10 * LIMITS.interval_ms
    assert code_of(CALLS[0], limited(tmp_path, clock)) == "limit_reached", "a clock set back"
    clock[0] = NOON + LIMITS.interval_ms
    assert code_of(CALLS[0], limited(tmp_path, clock)) == "done"
    assert VendCounter(tmp_path / "module.count").counted.vends == 4


def test_what_is_refused_is_not_counted(tmp_path):
    module = limited(tmp_path, [NOON])
    for call in REFUSED:
        code_of(call, module)
    assert VendCounter(tmp_path / "module.count").counted.vends == 0


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"amount": 1000}, "done"),
        ({"amount": 1001}, "amount_over_limit"),
        ({"subclass": 4, "amount": 1}, "amount_over_limit"),
        ({"subclass": 4, "amount": -1}, "amount_over_limit"),
    ],
)
def test_one_token_has_a_greatest_value(tmp_path, asked, code):
    assert (
        code_of(lambda: limited(tmp_path, [NOON]).issue_credit(PAN, HELD, **CREDIT | asked)) == code
    )


def test_digits_are_not_guessed_without_end_and_true_ones_do_not_count(tmp_path):
    clock = [NOON]
    module = limited(tmp_path, clock)
    true = SoftwareSecurityModule(VENDING_KEYS).issue_credit(PAN, HELD, **CREDIT)

    def said(digits):
        return code_of(lambda: module.verify(PAN, HELD, digits))

    assert [said(true) for _ in range(5)] == ["done"] * 5
    wrong = f"{int(true) ^ 1:020}"
    assert [said(wrong), said(wrong), said(wrong), said(true)] == [
        "crc_error",
        "crc_error",
        "limit_reached",
        "limit_reached",
    ]
    clock[0] += LIMITS.interval_ms
    assert said(true) == "done"


def test_guessing_is_bounded_in_our_own_process_too(tmp_path, monkeypatch):
    monkeypatch.setattr("prepaid.security_modules.wall_ms", lambda: NOON)
    key_file = tmp_path / "keys.sts"
    key_file.write_bytes(seal(VENDING_KEYS, PASSPHRASE, secrets.token_bytes(RANDOM_OCTETS)))
    key_file.chmod(0o600)
    module = open_security_module(Sts(key_file=key_file, key_passphrase=SecretStr(PASSPHRASE)))
    wrong = f"{int(module.issue_credit(PAN, HELD, **CREDIT)) ^ 1:020}"
    said = [
        code_of(lambda: module.verify(PAN, HELD, wrong)) for _ in range(MAX_FAILED_VERIFICATIONS)
    ]
    assert set(said) == {"crc_error"}
    assert code_of(lambda: module.verify(PAN, HELD, wrong)) == "limit_reached"
    assert module.issue_credit(PAN, HELD, **CREDIT), "it still sells"


def test_a_count_that_cannot_be_kept_gives_no_token(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    counter = VendCounter(folder / "module.count")
    module = LimitedSecurityModule(
        SoftwareSecurityModule(VENDING_KEYS), LIMITS, counter, lambda: NOON
    )
    folder.rmdir()
    with pytest.raises(OSError, match="No such file"):
        CALLS[0](module)
    assert perform(SoftwareSecurityModule(VENDING_KEYS), frames.CheckValue(sgc="123456", krn=1))


@pytest.mark.parametrize("content", [b"", b"{", b'{"vends":"1"}', b'{"vends":1,"more":2}'])
def test_a_damaged_counter_is_refused(tmp_path, content):
    (tmp_path / "module.count").write_bytes(content)
    with pytest.raises(DomainError) as refusal:
        VendCounter(tmp_path / "module.count")
    assert refusal.value.code == "counter_invalid"


def test_a_counter_is_read_as_it_was_kept(tmp_path):
    counter = VendCounter(tmp_path / "module.count")
    counter.keep(Counted(vends=7, began_ms=NOON, in_interval=2))
    assert VendCounter(tmp_path / "module.count").counted == counter.counted


def test_a_file_in_the_place_of_the_socket_is_kept(tmp_path):
    path = tmp_path / "notes"
    path.write_text("mine")
    with pytest.raises(DomainError) as refusal, alone(path):
        pass
    assert (refusal.value.code, path.read_text()) == ("socket_refused", "mine")


def test_a_place_that_no_socket_can_have_is_refused(tmp_path):
    with pytest.raises(DomainError) as refusal:
        SecurityModuleServer(tmp_path / ("x" * 200), SoftwareSecurityModule({}), frozenset())
    assert refusal.value.code == "socket_refused"


def test_many_threads_share_one_connection_and_none_gets_anothers_answer(tmp_path):
    here = SoftwareSecurityModule(VENDING_KEYS)
    wrong = []
    with served(tmp_path, here) as there:

        def ask(number):
            for amount in range(number * 10, number * 10 + 5):
                digits = there.issue_credit(PAN, HELD, **CREDIT | {"amount": amount})
                if digits != here.issue_credit(PAN, HELD, **CREDIT | {"amount": amount}):
                    wrong.append(amount)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
