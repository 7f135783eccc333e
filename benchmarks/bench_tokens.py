"""Tokens per second, beside a floor of the same kind from a library.

The floor is what any implementation pays for one block of a 64-bit cipher through the same call
path: one DES block (EA07, as DKGA02 also uses it) by the cryptography library, key schedule
included, since every meter has a key of its own. A ratio says how many such blocks one token costs
here. Every token that is counted is also checked: it decodes to what was encoded, and under the
next meter's key it does not authenticate.

    python -m benchmarks.bench_tokens [--tokens N] [--json]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
ROUNDS = 3


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


def per_second(count: int, run: Callable[[], None]) -> float:
    """The best of a few rounds, in processor time: others share this machine."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        run()
        best = min(best, time.process_time() - started)
    return count / best


def measure(count: int) -> dict[str, object]:
    """All figures of one run, with its correctness checks."""
    block = bytes(8)

    def floor() -> None:
        for place in range(count):
            des_encrypt(place.to_bytes(8, "big"), block)

    report: dict[str, object] = {"tokens": count}
    rate = per_second(count, floor)
    report["des_blocks_per_s"] = round(rate)
    wrong = 0
    for ea in (7, 11):
        work = prepare(ea, count)

        def encode(work: Work = work) -> None:
            for token, key in zip(work.tokens, work.keys, strict=True):
                codec.encode(token, key)

        def decode(work: Work = work) -> None:
            for digits, key in zip(work.digits, work.keys, strict=True):
                codec.decode(digits, key)

        for name, run in (("encode", encode), ("decode", decode)):
            found = per_second(count, run)
            report[f"ea{ea:02}_{name}_per_s"] = round(found)
            report[f"ea{ea:02}_{name}_in_des_blocks"] = round(rate / found, 2)
        wrong += check(work)
    report["wrong"] = wrong
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    report = measure(chosen.tokens)
    if chosen.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:24} {value}")
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
