"""Ask the API what nobody asks: `python -m fuzz.api [--seconds N] [--seed N]` (scripts/fuzz_api).

schemathesis makes requests from the API's own description, well-formed and not, one by one and
along its links, against `prepaid api` with a database of its own, acting as the application. Wrong
is: a 5xx, an answer that the description does not know, a body that is not of its form. At the end
the laws of `prepaid audit` must hold over whatever was written. Exit 0: nothing was wrong.
"""

import argparse
import base64
import json
import os
import random
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg import Connection

from credit_engine.terms import Installation
from prepaid.runtime import Folders, Instance
from schemas.quantities import format_instant
from store import operators, registry, vending
from store.audit import audit
from store.registry import NewMeter
from store.roles import as_application
from store.scratch import scratch_database
from store.terms import TermsCache
from store.vending import Payment
from tokens.key_file import RANDOM_OCTETS, seal
from tokens.keys import KeyAttributes, VendingKey
from tokens.numbers import check_digit, meter_pan
from tokens.security_module import SoftwareSecurityModule

ROOT = Path(__file__).parent.parent
ACCOUNTS = 6
_SERVED = re.compile(
    r'^prepaid_api_requests_total{method="(\w+)",route="([^"]+)",status="(\d+)"} ([\d.e+]+)$', re.M
)
DAY_MS = 24 * 3_600_000
ATTRIBUTES = KeyAttributes(
    sgc="999913", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=11, dkga=4
)
PHASES = "examples,coverage,fuzzing,stateful"
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
)  # fmt: skip
TARIFF: dict[str, Any] = {
    "timezone": "Africa/Nouakchott",
    "currency": "MRU",
    "holidays": [],
    "tariff": {
        "versions": [
            {
                "valid_from": "2020-01-01",
                "period": "month",
                "bands": [
                    {
                        "name": "all",
                        "method": "graduated",
                        "blocks": [{"up_to_kwh": "100", "price": "2.459"}, {"price": "5.903"}],
                    }
                ],
            }
        ]
    },
}


@dataclass(frozen=True, slots=True)
class Share:
    """How much of it: examples of each operation, and at most so many seconds for all phases."""

    examples: int
    seconds: int | None
    seed: int
    phases: str = PHASES
    more: Sequence[str] = ()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--examples", type=int, default=100, help="at most, of each operation")
    parser.add_argument("--phases", default=PHASES)
    parser.add_argument("--seed", type=int, default=None)
    # Everything else is schemathesis's own: --include-path-regex, --report, ...
    options, more = parser.parse_known_args()
    seed = random.SystemRandom().getrandbits(31) if options.seed is None else options.seed
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    share = Share(options.examples, options.seconds, seed, options.phases, more)
    # A server whose owner's address is given, or one of its own.
    given = os.environ.get("FUZZ_DATABASE_URL")
    if given is not None:
        return survey(given, share, sys.stdout.write)
    with tempfile.TemporaryDirectory(prefix="prepaid-fuzz-") as name:
        Path(name).chmod(0o755)
        folders = Folders(Path(name) / "data", Folders.choose(os.environ).cache)
        with Instance(lambda _: None, folders=folders) as instance:
            return survey(instance.database_url, share, sys.stdout.write)


def survey(database_url: str, share: Share, say: Callable[[str], object]) -> int:
    """Asks a server of a scratch database on the owner's server; 0 when nothing was wrong."""
    with ExitStack() as stack:
        url = stack.enter_context(scratch_database(database_url))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prepaid-fuzz-")))
        conn = stack.enter_context(psycopg.connect(as_application(url), autocommit=True))
        vending_key = VendingKey.generate(
            ATTRIBUTES.dkga, secrets.token_bytes(20), base_date=ATTRIBUTES.base_date
        )
        known = _fill(conn, SoftwareSecurityModule({(ATTRIBUTES.sgc, ATTRIBUTES.krn): vending_key}))
        (folder / "known.json").write_text(json.dumps(known), encoding="utf-8")
        environment = _environment(folder, as_application(url), known, vending_key)
        address = stack.enter_context(_serving(environment, folder))
        failed = _ask(address, folder, environment, share, say)
        _summarise(address, say)
        crashed = [
            line
            for line in (folder / "api.log").read_text(encoding="utf-8").splitlines()
            if "request_failed" in line or "Traceback" in line
        ]
        broken = [f"{check.name}: {check.failures}" for check in audit(conn) if not check.passed]
        for line in (*crashed, *broken):
            say(f"{line}\n")
        if crashed:
            say((folder / "api.log").read_text(encoding="utf-8")[-6000:])
        return 1 if failed or crashed or broken else 0


def _fill(conn: Connection, module: SoftwareSecurityModule) -> dict[str, Any]:
    """Accounts with and without tokens, payments, an operator, a customer: what requests name."""
    now_ms = time.time_ns() // 1_000_000
    opened_ms = now_ms - 20 * DAY_MS
    centre = registry.add_centre(conn, "north", "North")
    tariff = registry.add_tariff(conn, "social", "Social", TARIFF)
    operators.add(conn, "fuzz", "admin", who="fuzz", now_ms=opened_ms)
    known: dict[str, Any] = {
        "operator": operators.add_access_key(conn, "fuzz", "fuzz", who="fuzz", now_ms=opened_ms),
        "partner": "bank",
        "signing": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
        "tariffs": ["social"],
        "centres": ["north"],
        "accounts": [], "meters": [], "top_ups": [], "numbers": [],
    }  # fmt: skip
    holder = registry.add_customer(conn, "Aminata Sow", opened_ms)
    known["customer"] = registry.add_access_key(conn, holder, opened_ms)
    terms = TermsCache()
    for serial in range(1, ACCOUNTS + 1):
        payload = f"07{serial:08d}"
        number = payload + check_digit(payload)
        new = NewMeter(number)
        if serial % 2:
            new = NewMeter(number, meter_pan("600727", number), ATTRIBUTES)
        registry.add_meter(conn, centre, new)
        registry.open_account(
            conn,
            number=f"A-{serial}",
            customer=holder,
            centre=centre,
            tariff=tariff,
            terms={"activated_at": format_instant(opened_ms)},
            installation=Installation(number, 10**9, opened_ms, 0, 100_000),
            now_ms=now_ms,
        )
        known["accounts"].append(f"A-{serial}")
        known["meters"].append(number)
        txn = f"known-{serial}"
        payment = Payment("bank", txn, number, 50_000_000, opened_ms, bytes(32))
        known["numbers"].append(txn)
        known["top_ups"].append(vending.vend(conn, terms, module, payment, now_ms))
    return known


def _environment(
    folder: Path, url: str, known: Mapping[str, Any], vending_key: VendingKey
) -> dict[str, str]:
    passphrase = secrets.token_urlsafe(24)
    keys = {(ATTRIBUTES.sgc, ATTRIBUTES.krn): vending_key}
    bank = [{"code": known["partner"], "name": "A bank", "keys": [known["signing"]]}]
    contents = {
        "vending-keys": seal(keys, passphrase, secrets.token_bytes(RANDOM_OCTETS)),
        "partners.json": json.dumps(bank).encode(),
    }
    for name, content in contents.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    return os.environ | {
        "PREPAID_DATABASE__URL": url,
        "PREPAID_STS__KEY_FILE": str(folder / "vending-keys"),
        "PREPAID_STS__KEY_PASSPHRASE": passphrase,
        "PREPAID_PARTNERS__FILE": str(folder / "partners.json"),
        # The bounds have tests of their own; here they would hide what lies behind.
        "PREPAID_API__REQUESTS_PER_MINUTE": "100000000",
        "PREPAID_API__REQUESTS_PER_MINUTE_OF_ADDRESS": "100000000",
    }


@contextmanager
def _serving(environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    with (folder / "api.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prepaid", "api", "--port", "0"],
            env=dict(environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            if not address:
                raise RuntimeError((folder / "api.log").read_text(encoding="utf-8")[-500:])
            yield address
        finally:
            process.terminate()
            process.wait(20)


def _ask(
    address: str,
    folder: Path,
    environment: Mapping[str, str],
    share: Share,
    say: Callable[[str], object],
) -> bool:
    """Whether schemathesis found a fault."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json",
        "--phases", share.phases, "--checks", ",".join(CHECKS),
        "--max-examples", str(share.examples), "--seed", str(share.seed), "--no-shrink",
        "--suppress-health-check", "all", "--generation-database", "none", "--no-color",
        "--continue-on-failure", *share.more, "--warnings", "off", "--request-timeout", "30",
        "--generation-with-security-parameters", "false",
        # A stream: it ends with the session, not with an answer.
        "--exclude-path-regex", "/events$",
    ]  # fmt: skip
    if share.seconds is not None:
        command += ["--max-time", str(share.seconds)]
    return _run(command, folder, environment, say) != 0


def _summarise(address: str, say: Callable[[str], object]) -> None:
    """One line of JSON: answers by status, and the routes that never did what they are for."""
    statuses: Counter[str] = Counter()
    routes: dict[str, set[str]] = {}
    text = httpx.get(f"{address}/metrics", timeout=30).text
    unknown: Counter[str] = Counter()
    for method, route, status, number in _SERVED.findall(text):
        statuses[status] += int(float(number))
        if status == "401":
            unknown[f"{method} {route}"] += int(float(number))
        routes.setdefault(f"{method} {route}", set()).add(status)
    # A method that a route does not have is asked for on purpose.
    asked = {name: found for name, found in routes.items() if found != {"405"}}
    did = [name for name, found in asked.items() if any(each[0] == "2" for each in found)]
    line = {
        "answers": sum(statuses.values()),
        "by_status": dict(sorted(statuses.items())),
        "callers_refused": dict(unknown.most_common(5)),
        "routes_that_did": len(did),
        "only_refused": {name: sorted(asked[name]) for name in sorted(asked.keys() - set(did))},
    }
    say(json.dumps(line) + "\n")


def _run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    say: Callable[[str], object],
) -> int:
    found = subprocess.run(
        command,
        env={
            **environment,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "fuzz.api_hooks",
            "FUZZ_API_KNOWN": str(folder / "known.json"),
        },
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    say(found.stdout)
    say(found.stderr)
    return found.returncode


if __name__ == "__main__":
    sys.exit(main())
