"""Tokens per second, beside a floor of the same kind from a library.

The floor is what any implementation pays for one block of a 64-bit cipher through the same call
path: one DES block (EA07, as DKGA02 also uses it) by the cryptography library, key schedule
included, since every meter has a key of its own. A ratio says how many such blocks one token costs
here. Every token that is counted is also checked: it decodes to what was encoded, and under the
next meter's key it does not authenticate. Rates are in CPU time: others share the machine.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.measure import Cost, rate_ratios, rotated
from benchmarks.report import Asked, Report, Servers
from tokens import codec
from tokens.apdu import Apdu
from tokens.credit import Credit, transfer_credit
from tokens.errors import TokenError
from tokens.keys import DecoderKey, KeyAttributes, VendingKey, decoder_key, des_encrypt
from tokens.numbers import check_digit

HELD = KeyAttributes(sgc="123456", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=11, dkga=4)
VENDING_KEY = VendingKey(bytes(range(20)))
METERS = 50
FIRST_TID = 6_400_002
# One token for so many meters of the fleet: EA11 takes a while.
TOKENS_SHARE = 10
FLOOR = "one DES block"


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens with their digits and the key of the meter that each is for."""

    keys: Sequence[DecoderKey]
    tokens: Sequence[Apdu]
    digits: Sequence[str]


def prepare(ea: int, count: int) -> Work:
    """`count` credit tokens for fifty meters in turn."""
    attributes = KeyAttributes(
        **{name: getattr(HELD, name) for name in HELD.__slots__ if name != "ea"}, ea=ea
    )
    keys = [decoder_key(VENDING_KEY, _pan(serial), attributes) for serial in range(METERS)]
    tokens = [
        transfer_credit(Credit(0, 1 + place % 16_000), tid=FIRST_TID + place, rnd=place % 16)
        for place in range(count)
    ]
    each = [keys[place % METERS] for place in range(count)]
    return Work(each, tokens, [codec.encode(t, k) for t, k in zip(tokens, each, strict=True)])


def _pan(serial: int) -> str:
    drn = f"07{serial:08d}"
    drn += check_digit(drn)
    return f"600727{drn}" + check_digit(f"600727{drn}")


def check(work: Work) -> int:
    """How many of the tokens are wrong: not what was encoded, or read by another meter."""
    wrong = 0
    following = [*work.keys[1:], work.keys[0]]
    for token, digits, key, other in zip(
        work.tokens, work.digits, work.keys, following, strict=True
    ):
        wrong += codec.decode(digits, key) != token
        try:
            codec.decode(digits, other)
            wrong += key != other
        except TokenError:
            continue
    return wrong


def run(servers: Servers, asked: Asked) -> Report:
    """Tokens a second of CPU time, and how many blocks each costs."""
    count = max(METERS, asked.meters // TOKENS_SHARE)
    block = bytes(8)
    works = {ea: prepare(ea, count) for ea in (7, 11)}

    def floor() -> None:
        for place in range(count):
            des_encrypt(place.to_bytes(8, "big"), block)

    def encode(work: Work) -> None:
        for token, key in zip(work.tokens, work.keys, strict=True):
            codec.encode(token, key)

    def decode(work: Work) -> None:
        for digits, key in zip(work.digits, work.keys, strict=True):
            codec.decode(digits, key)

    subjects: dict[str, Callable[[], None]] = {FLOOR: floor}
    for ea, work in works.items():
        subjects[f"EA{ea:02} encode"] = partial(encode, work)
        subjects[f"EA{ea:02} decode"] = partial(decode, work)
    costs: dict[str, list[Cost]] = {name: [] for name in subjects}
    for repetition in range(asked.repetitions):
        for name, subject in rotated(list(subjects.items()), repetition):
            began = time.process_time()
            subject()
            spent = time.process_time() - began
            costs[name].append(Cost(count, spent, {"worker": spent}))
    report = Report("tokens", {"tokens": count})
    for name, found in costs.items():
        report.add_costs(name, found, "block" if name == FLOOR else "token")
    for name in subjects:
        if name != FLOOR:
            blocks = rate_ratios(costs[FLOOR], costs[name])
            report.add(name, "cost in blocks", "blocks", blocks)
    for ea, work in works.items():
        wrong = check(work)
        found_wrong = [f"{wrong} of {count}"] if wrong else []
        report.check(f"EA{ea:02}: every token decodes, and only with its own key", found_wrong)
    return report
