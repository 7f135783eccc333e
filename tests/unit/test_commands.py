import json

import pytest

from schemas.commands import (
    ARGUMENTS,
    COMMAND_TYPES,
    FINAL,
    TOKEN_RESULTS,
    TOKEN_SUCCESSES,
    TRANSITIONS,
    BatchReceipt,
    Command,
    CommandError,
    canonical,
    gateway_receipts,
    may_become,
    parse_command,
    parse_gateway_receipt,
    parse_receipt,
    payload,
    receipt,
)
from schemas.decoding import LIMIT_BYTES
from schemas.errors import DomainError
from schemas.wire import RefusedRow
from tokens.acceptance import Result

OPEN = Command("01J8ZK", "relay", 412, 1_772_360_100_000, 1_772_361_000_000, {"to": "open"})


def test_the_canonical_bytes_do_not_depend_on_the_order_of_arguments() -> None:
    one = Command("c", "resend", 1, 0, 1000, {"boot": 1, "from": 2, "to": 3})
    other = Command("c", "resend", 1, 0, 1000, {"to": 3, "from": 2, "boot": 1})
    assert canonical(one) == canonical(other)


def test_the_signature_is_added_and_nothing_else_changes() -> None:
    signed = json.loads(payload(OPEN, "c2ln"))
    assert signed.pop("sig") == "c2ln"
    assert signed == json.loads(canonical(OPEN))


@pytest.mark.parametrize("meter", [None, "37000000017"])
def test_a_command_comes_out_as_it_went_in(meter: str | None) -> None:
    command = Command("c", "display", 7, 0, 1000, {"text": "Solde 5 MRU \u200f٥"}, meter)
    assert parse_command(payload(command)) == command


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("dance", {}),
        ("relay", {}),
        ("relay", {"to": "open", "how": "fast"}),
        ("arm", {"to": "open"}),
        ("resend", {"boot": 1, "from": 1}),
    ],
)
def test_a_command_with_other_arguments_is_never_built(kind: str, args: dict[str, object]) -> None:
    with pytest.raises(DomainError) as caught:
        Command("c", kind, 1, 0, 1000, args)  # type: ignore[arg-type]  # the case
    assert caught.value.code == "bad_command"


@pytest.mark.parametrize(("ctr", "expires_ms"), [(-1, 1000), (1, 0)])
def test_a_command_must_expire_after_its_issue(ctr: int, expires_ms: int) -> None:
    with pytest.raises(DomainError):
        Command("c", "arm", ctr, 0, expires_ms)


@pytest.mark.parametrize(
    ("data", "code", "cmd"),
    [
        (b"", "bad_command", None),
        (b"[]", "bad_command", None),
        (payload(OPEN).replace(b'"v":1', b'"v":2'), "bad_command", None),
        (payload(OPEN).replace(b'"relay"', b'"dance"'), "unknown_type", "01J8ZK"),
        (payload(OPEN).replace(b'"to"', b'"at"'), "bad_command", "01J8ZK"),
        (payload(OPEN).replace(b"2026", b"once"), "bad_command", "01J8ZK"),
    ],
)
def test_what_is_no_command_is_refused_and_answerable(
    data: bytes, code: str, cmd: str | None
) -> None:
    with pytest.raises(CommandError) as caught:
        parse_command(data)
    assert (caught.value.code, caught.value.cmd) == (code, cmd)


def test_receipts_say_boot_and_seq() -> None:
    assert parse_receipt(receipt(17, 90211)) == (17, 90211)
    for wrong in (b"", b"{}", b'{"v":1,"boot":1,"seq":true}'):
        with pytest.raises(DomainError) as caught:
            parse_receipt(wrong)
        assert caught.value.code == "bad_receipt"


def test_a_gateways_receipt_says_what_is_kept_and_what_was_refused() -> None:
    kept = [("37000000017", 17, 90211)]
    refused: list[RefusedRow] = [{"reason": "wrong_type", "row": 3}]
    (said,) = gateway_receipts("b-1", kept, refused)
    assert parse_gateway_receipt(said) == BatchReceipt("b-1", tuple(kept), tuple(refused))
    # Even a batch of which nothing could be read is answered.
    (empty,) = gateway_receipts(None, [], [])
    assert parse_gateway_receipt(empty) == BatchReceipt(None, (), ())
    with pytest.raises(DomainError) as caught:
        parse_gateway_receipt(b'{"v":1,"rows":[["x",1,1]]}')
    assert caught.value.code == "bad_receipt"


def test_a_long_answer_to_a_gateway_comes_in_messages_that_it_can_hold() -> None:
    kept = [(f"{37_000_000_000 + i:011d}", 2**40, 2**50) for i in range(1000)]
    refused: list[RefusedRow] = [
        {"reason": "sentinel_register", "row": i, "meter": kept[0][0], "boot": 1, "seq": 2**50}
        for i in range(2000)
    ]
    said = gateway_receipts("b" * 64, kept, refused)
    assert max(len(each) for each in said) <= LIMIT_BYTES["g"]
    parts = [parse_gateway_receipt(each) for each in said]
    assert [row for part in parts for row in part.kept] == kept
    assert [row for part in parts for row in part.refused] == refused


def test_the_table_of_states_is_closed_and_every_state_can_end() -> None:
    assert set().union(*TRANSITIONS.values()) <= set(TRANSITIONS)
    for start in TRANSITIONS:
        reached, front = {start}, {start}
        while front:
            front = set().union(*(TRANSITIONS[state] for state in front)) - reached
            reached |= front
        assert reached & FINAL


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        ("queued", "sent", True),
        ("queued", "done", False),  # nothing was said, so nothing can have been done
        ("sent", "done", True),  # the intermediate acknowledgements may be lost
        ("accepted", "sent", False),  # an old report does not turn time back
        ("executing", "superseded", False),  # the switch is already moving
        ("unknown", "done", True),  # a late answer still tells how it ended
        ("done", "failed", False),
        ("superseded", "done", False),
        ("done", "done", False),
    ],
)
def test_steps_between_states(before: str, after: str, allowed: bool) -> None:
    assert may_become(before, after) is allowed  # type: ignore[arg-type]  # the case


def test_every_type_states_its_arguments() -> None:
    assert set(ARGUMENTS) == set(COMMAND_TYPES)


def test_token_results_are_those_of_the_token_side() -> None:
    assert set(TOKEN_RESULTS) == {result.value for result in Result}
    assert set(TOKEN_RESULTS) >= TOKEN_SUCCESSES
