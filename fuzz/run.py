"""Run decoders on many bytes: `python -m fuzz.run [TARGET ...] [--count N]`.

The bytes are well-formed ones changed at random, from a seed that is printed and can be given
again. One line of JSON per target, with the peak memory of the process so far. Exit 0: nothing
failed; 1: an input failed, and is printed.
"""

import argparse
import json
import random
import resource
import sys
import time
import traceback

from fuzz.mutation import mutated
from fuzz.targets import Target, targets


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", nargs="*", help="default: all")
    parser.add_argument("--count", type=int, default=100_000, help="inputs per target")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    known = targets()
    if options.list:
        sys.stdout.write("\n".join(known) + "\n")
        return 0
    chosen = [known[name] for name in options.target or known]
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    return max(survey(target, options.count, seed) for target in chosen)


def survey(target: Target, count: int, seed: int) -> int:
    """`count` inputs for one target; one line of JSON about them."""
    source = random.Random(f"{seed}/{target.name}")
    started = time.monotonic()
    failed = 0
    for _ in range(count):
        data = mutated(source, target.seeds)
        try:
            target.check(data)
        except Exception:
            failed += 1
            sys.stderr.write(f"{target.name}: {data!r}\n{traceback.format_exc()}\n")
            if failed >= 5:
                break
    line = {
        "target": target.name,
        "inputs": count,
        "failed": failed,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
