"""Signed commands: what a meter with verification keys obeys, and what it refuses."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.commands import Command, canonical, encode, parse_signed_command, payload
from schemas.configuration import Configuration, parse_configuration
from schemas.errors import DomainError
from schemas.signing import SigningKey, VerificationKey, verify_command
from simulators import meter_state
from simulators.meter import Meter, Nameplate
from simulators.meter_state import MeterState

METER, OTHER = "37000000017", "37000000025"
T0 = 1_772_323_200_000  # 2026-03-01T00:00:00Z
KEY, NEXT, STRANGER = (SigningKey.from_octets(bytes([n]) * 32) for n in (1, 2, 3))
OPEN = Command("c-7", "relay", 7, T0 - 1000, T0 + 60_000, {"to": "open"})


class NoLoad:
    def energy_wh(self, ms: int) -> int:
        return 0


def meter(state: MeterState | None = None, *keys: SigningKey) -> Meter:
    held = tuple(key.verification_key for key in keys or (KEY,))
    made = Meter(Nameplate(METER, 0, 900_000, 0, held), NoLoad(), state or MeterState())
    made.power_up(T0)
    return made


def signed(command: Command, key: SigningKey = KEY, number: str = METER) -> bytes:
    return payload(*key.sign_command(command, number))


def answer(of: Meter, data: bytes, now_ms: int = T0) -> list[tuple[str, str | None]]:
    said = [json.loads(each.payload) for each in of.receive(now_ms, "cmd", data)]
    return [(form["state"], form.get("why")) for form in said]


def test_a_signed_command_is_obeyed() -> None:
    of = meter()
    assert answer(of, signed(OPEN)) == [("accepted", None), ("done", None)]
    assert of.state.relay == "open"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (payload(OPEN), "unsigned"),
        (signed(OPEN, STRANGER), "bad_signature"),
        (signed(OPEN).replace(b'"to":"open"', b'"to":"close"'), "bad_signature"),
        (signed(OPEN).replace(b'"ctr":7', b'"ctr":8'), "bad_signature"),
        (payload(OPEN, "A" * 86), "bad_signature"),
        (payload(OPEN, "!"), "bad_signature"),
        (payload(OPEN, KEY.sign(canonical(OPEN))), "other_meter"),
        (signed(OPEN, number=OTHER), "other_meter"),
        (signed(OPEN, number=OTHER).replace(OTHER.encode(), METER.encode()), "bad_signature"),
    ],
)
def test_what_was_not_signed_for_this_meter_is_refused_and_uses_up_no_counter(
    data: bytes, why: str
) -> None:
    of = meter()
    assert answer(of, data) == [("refused", why)]
    assert (of.state.relay, of.state.ctr) == ("closed", -1)


def test_a_replayed_and_an_expired_command_are_refused_although_they_are_signed() -> None:
    of = meter()
    answer(of, signed(OPEN))
    answer(of, signed(replace(OPEN, cmd="c-8", ctr=8, args={"to": "close"})))
    assert answer(of, signed(OPEN)) == [("refused", "stale")]
    late = replace(OPEN, cmd="c-9", ctr=9)
    assert answer(of, signed(late), OPEN.expires_ms) == [("failed", "expired")]
    assert of.state.relay == "closed"


def test_a_meter_without_keys_obeys_as_before() -> None:
    of = Meter(Nameplate(METER, 0, 900_000, 0), NoLoad(), MeterState())
    of.power_up(T0)
    assert answer(of, payload(OPEN))[-1] == ("done", None)


@settings(max_examples=40)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    ctr=st.integers(0, 2**40),
    span_ms=st.integers(1, 10**9).map(lambda s: s * 1000),
)
def test_a_signature_survives_the_wire_and_any_order_of_keys(
    text: str, ctr: int, span_ms: int
) -> None:
    command = Command("c", "display", ctr, T0, T0 + span_ms, {"text": text})
    form = json.loads(signed(command))
    shuffled = json.dumps(dict(reversed(form.items())), indent=1).encode()
    arrived = parse_signed_command(shuffled)
    assert verify_command(arrived, METER, [KEY.verification_key]) == replace(command, meter=METER)


def test_keys_roll_over_without_a_command_lost() -> None:
    state = MeterState()
    of = meter(state)
    for version, keys in enumerate([(KEY, NEXT), (NEXT,)], 1):
        cfg = Configuration(METER, version, tuple(key.verification_key for key in keys))
        of.receive(T0, "cfg", cfg.payload(KEY))
        ctr = 10 * version
        assert answer(of, signed(replace(OPEN, ctr=ctr), NEXT))[-1] == ("done", None)
        old = answer(of, signed(replace(OPEN, ctr=ctr + 1), KEY))[-1]
        assert old == (("done", None) if KEY in keys else ("refused", "bad_signature"))
    after = meter(meter_state.load(meter_state.dump(state)))
    assert after.command_keys == (NEXT.verification_key,)
    assert after.state.cfg_version == 2


GOOD = Configuration(METER, 2, (NEXT.verification_key,))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (GOOD.payload(STRANGER), "bad_signature"),
        (GOOD.payload(NEXT), "bad_signature"),
        (GOOD.payload(KEY).replace(b'"version":2', b'"version":9'), "bad_signature"),
        (Configuration(OTHER, 2, GOOD.command_keys).payload(KEY), "other_meter"),
        (Configuration(METER, 1, GOOD.command_keys).payload(KEY), "stale"),
        (encode(GOOD.form()), "bad_configuration"),
        (b"", "bad_configuration"),
    ],
)
def test_a_configuration_that_is_not_the_servers_newest_changes_nothing(
    data: bytes, code: str
) -> None:
    with pytest.raises(DomainError) as caught:
        parse_configuration(data, METER, [KEY.verification_key], 1)
    assert caught.value.code == code
    state = MeterState(cfg_version=1)
    of = meter(state)
    assert of.receive(T0, "cfg", data) == []
    assert of.command_keys == (KEY.verification_key,)


def test_a_configuration_holds_one_or_two_keys_and_a_version() -> None:
    three = tuple(key.verification_key for key in (KEY, NEXT, STRANGER))
    for version, keys in ((0, three[:1]), (1, ()), (1, three)):
        with pytest.raises(DomainError, match="keys"):
            Configuration(METER, version, keys)


def test_keys_come_from_their_files_and_show_nothing_secret() -> None:
    again = SigningKey.from_pem(KEY.pem())
    assert again.verification_key == KEY.verification_key
    assert repr(again) == f"<SigningKey for {KEY.verification_key.text}>"
    for make in (lambda: SigningKey.from_pem(b"no key"), lambda: SigningKey.from_octets(b"short")):
        with pytest.raises(DomainError) as caught:
            make()
        assert caught.value.code == "bad_signing_key"
    with pytest.raises(DomainError) as caught:
        VerificationKey("not a key")
    assert caught.value.code == "bad_verification_key"
