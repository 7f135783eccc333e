"""The API as users run it: latency of balances, quotes and payments at offered rates.

The floors are the same server's liveness answer, which asks no database, and, for balances at the
rate of a fleet's customers, one row by its key through the same framework. Every balance is
compared with the independent expectation; every payment must come back with a token.
"""

import base64
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from api.signatures import sign
from benchmarks import balance_load, population
from benchmarks.balance_load import BalanceLoad, Holders
from benchmarks.latencies import quantile
from benchmarks.ledger_checks import count as count_of
from benchmarks.load import LoadError
from benchmarks.measure import Cost, Meter, rotated
from benchmarks.open_loop import OpenLoop
from benchmarks.population import Population
from benchmarks.processes import postmaster_pid, tree_cpu_s
from benchmarks.report import Asked, Report, Servers
from benchmarks.requests import Answered, Request, send
from benchmarks.sql import statement
from benchmarks.stage import CLOCK_SLOT
from schemas.quantities import format_instant, format_micro
from store import operators
from store.scratch import scratch_database
from tokens.errors import TokenError
from tokens.key_file import RANDOM_OCTETS, seal
from tokens.keys import KeyAttributes, VendingKey
from tokens.numbers import meter_pan

IIN = "600727"
ATTRIBUTES = KeyAttributes(
    sgc="999911", krn=1, kt=2, ken=255, ti="01", base_date=2014, ea=11, dkga=4
)
BANK = "bench-bank"
PAYEES = 1_000
# From one address come all of them here; the bound itself is not what is measured.
ENOUGH_A_MINUTE = 10_000_000
# Of a paced stretch: five kinds of requests take their turns.
SHARE = 0.5
WARM_UP = 3
# Of the holders, each so many has two weeks of history: all of them would fill a disk.
OLD_EVERY = 10
STOP_S = 15.0
SETTLED_MS = population.instant_ms(population.FIRST_SLOT)


@dataclass(frozen=True, slots=True)
class Offered:
    """Requests of one kind at one rate, and what is wrong with an answer."""

    name: str
    rate: int
    make: Callable[[int], Request]
    wrong: Callable[[int, Answered], str | None]


class Desk:
    """Who asks: an operator with a key, a bank that signs, and meters that take tokens."""

    def __init__(self, conn: Connection[Any], fleet: Population, now_ms: int) -> None:
        self._fleet = fleet
        self._now_ms = now_ms
        operators.add(conn, "bench", "admin", who="bench", now_ms=now_ms)
        key = operators.add_access_key(conn, "bench", "bench", who="bench", now_ms=now_ms)
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self.signing_key = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.payees = list(_payees(conn, fleet))
        self._paid_for = frozenset(self.payees)
        self.paid = 0

    def offered(self) -> list[Offered]:
        return [
            Offered("liveness", 100, lambda _: Request("GET", "/healthz", {}), _refused(200)),
            Offered("balance at 25/s", 25, self._balance, self._wrong_balance),
            Offered("balance at 100/s", 100, self._balance, self._wrong_balance),
            Offered("quote", 30, self._quote, _refused(200)),
            Offered("payment", 20, self._payment, _no_token),
        ]

    def _account(self, place: int) -> str:
        """Accounts from the end of the fleet on; those who pay are spread over all of it."""
        return f"B-{int(self._fleet.number(place))}"

    def _balance(self, place: int) -> Request:
        return Request("GET", f"/v1/accounts/{self._account(place)}/balance", self._headers)

    def _wrong_balance(self, place: int, answered: Answered) -> str | None:
        expected = self.expected(self._fleet.number(place))
        if expected is None:
            return _refused(200)(place, answered)
        body = answered.body
        found = body["balance"]["amount"] if isinstance(body, dict) and "balance" in body else None
        if found is None or answered.status != 200:
            return f"status {answered.status}"
        return None if found == expected else f"{found}, not {expected}"

    def expected(self, number: str) -> str | None:
        """What the account of a meter has left; None where it may have been paid for."""
        if number in self._paid_for:
            return None
        return format_micro(self._fleet.expected_balance_micro(number))

    def _quote(self, place: int) -> Request:
        path = f"/v1/accounts/{self._account(place)}/quotes"
        return Request("POST", path, self._headers, b'{"amount":"50.00"}')

    def _payment(self, place: int) -> Request:
        self.paid += 1
        form = {
            "partner_txn_id": f"bench-{self.paid}",
            "meter": self.payees[self.paid % len(self.payees)],
            "amount": "50.00",
            "paid_at": format_instant(self._now_ms),
        }
        body = json.dumps(form).encode()
        message, timestamp_s = f"msg_{secrets.token_hex(12)}", int(time.time())
        headers = {
            "webhook-partner": BANK,
            "webhook-id": message,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": sign(self.signing_key, message, timestamp_s, body),
            "content-type": "application/json",
        }
        return Request("POST", "/v1/partners/payments", headers, body)


def _payees(conn: Connection[Any], fleet: Population) -> Iterator[str]:
    """Meters whose number happens to be a DRN are given key attributes."""
    numbers = (f"{n:011d}" for n in range(1, fleet.meters + 1))
    found = 0
    for number in numbers:
        try:
            pan = meter_pan(IIN, number)
        except TokenError:
            continue
        values = {**asdict(ATTRIBUTES), "pan": pan, "number": number}
        conn.execute(statement("give_key"), values)
        yield number
        found += 1
        if found == PAYEES:
            return


def _refused(status: int) -> Callable[[int, Answered], str | None]:
    return lambda _, answered: (
        None if answered.status == status else f"status {answered.status}: {answered.body!r:.120}"
    )


def _no_token(place: int, answered: Answered) -> str | None:
    body = answered.body
    if answered.status == 201 and isinstance(body, dict) and body.get("tokens"):
        return None
    return f"status {answered.status}: {body!r:.120}"


def run(servers: Servers, asked: Asked) -> Report:
    """Latencies and CPU of each kind of request."""
    holders = min(asked.meters, balance_load.HOLDERS)
    old = range(0, holders, OLD_EVERY)
    of: dict[str, Any] = {"accounts": asked.meters, "with two weeks": len(old)}
    of["processes"] = asked.workers
    report = Report("api", of)
    now_ms = population.instant_ms(CLOCK_SLOT)
    with ExitStack() as stack:
        url = stack.enter_context(scratch_database(servers.database_url))
        conn = stack.enter_context(psycopg.connect(url, autocommit=True))
        fleet = population.populate(conn, asked.meters, old)
        desk = Desk(conn, fleet, now_ms)
        asking = Holders(fleet, holders)
        asking.sign_in(conn)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prepaid-bench-")))
        environment = _secrets(folder, desk) | {
            "PREPAID_DATABASE__URL": url,
            "PREPAID_CLOCK": f"{time.time_ns() // 1_000_000}:{now_ms}:1",
            "PREPAID_API__REQUESTS_PER_MINUTE": str(ENOUGH_A_MINUTE),
            "PREPAID_API__REQUESTS_PER_MINUTE_OF_ADDRESS": str(ENOUGH_A_MINUTE),
        }
        processes, address = _serve_api(stack, asked.workers, environment, folder)
        found: dict[str, list[tuple[list[float], Cost]]] = {
            each.name: [] for each in desk.offered()
        }
        wrong: list[str] = []
        for each in desk.offered():  # what the server reads once
            send(address, WARM_UP, each.rate, each.make)
        for repetition in range(asked.repetitions):
            for each in rotated(desk.offered(), repetition):
                meter = Meter(
                    {
                        "worker": lambda: sum(map(tree_cpu_s, processes)),
                        "database, all": lambda: tree_cpu_s(postmaster_pid(conn)),
                    }
                )
                count = max(1, int(each.rate * asked.paced_s * SHARE))
                with meter.running():
                    answers, _ = send(address, count, each.rate, each.make)
                found[each.name].append(([one.latency_ms for one in answers], meter.cost(count)))
                complaints = map(each.wrong, range(count), answers)
                wrong += [f"{each.name}: {line}" for line in complaints if line is not None]
                asked.progress(f"{each.name}: {count} answers ({repetition + 1})")
        for name, runs in found.items():
            report.add_costs(name, [cost for _, cost in runs], "answer")
            for share, word in ((0.5, "p50"), (0.99, "p99")):
                values = [quantile(latencies, share) for latencies, _ in runs]
                report.add(name, f"latency {word}", "ms", values)
        report.check("every answer is right", wrong)
        generator = OpenLoop(folder)
        of["generator"] = generator.kind
        load = BalanceLoad(conn, asking, generator, desk.expected)
        floor = stack.enter_context(_serving(("benchmarks.row_server",), environment, folder))
        _measure_balances(load, asked, (processes, address), ([floor[0].pid], floor[1]))
        load.tell(report)
        _check_ledger(report, conn, desk)
    return report


def _measure_balances(
    load: BalanceLoad,
    asked: Asked,
    subject: tuple[Sequence[int], str],
    floor: tuple[Sequence[int], str],
) -> None:
    servers = ((balance_load.BALANCE, *subject), (balance_load.ROW, *floor))
    for name, _, address in servers:
        load.warm_up(name, address)
    for repetition in range(asked.repetitions):
        for name, processes, address in rotated(servers, repetition):
            load.measure(name, address, processes, asked.paced_s)
            asked.progress(f"{name} ({repetition + 1})")


def _check_ledger(report: Report, conn: Connection[Any], desk: Desk) -> None:
    stored = count_of(conn, "count_top_ups")
    differing = count_of(conn, "count_differing")
    wrong = [] if stored == desk.paid else [f"{stored} top-ups of {desk.paid}"]
    report.check("every payment is one top-up", wrong)
    wrong = [f"{differing} are not"] if differing else []
    report.check("every balance is the sum of its entries", wrong)


def _secrets(folder: Path, desk: Desk) -> dict[str, str]:
    """Random keys for this run, in files of ours alone."""
    passphrase = secrets.token_urlsafe(24)
    vending = VendingKey.generate(
        ATTRIBUTES.dkga, secrets.token_bytes(20), base_date=ATTRIBUTES.base_date
    )
    sealed = seal(
        {(ATTRIBUTES.sgc, ATTRIBUTES.krn): vending}, passphrase, secrets.token_bytes(RANDOM_OCTETS)
    )
    bank = [{"code": BANK, "name": "Benchmark", "keys": [desk.signing_key]}]
    contents = {"vending-keys": sealed, "partners.json": json.dumps(bank).encode()}
    for name, content in contents.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    return os.environ | {
        "PREPAID_STS__KEY_FILE": str(folder / "vending-keys"),
        "PREPAID_STS__KEY_PASSPHRASE": passphrase,
        "PREPAID_PARTNERS__FILE": str(folder / "partners.json"),
    }


def _serve_api(
    stack: ExitStack, count: int, environment: Mapping[str, str], folder: Path
) -> tuple[Sequence[int], str]:
    """So many processes of the API on one port, until the stack ends: their ids, their address."""
    processes: list[int] = []
    address = ""
    for _ in range(count):
        port = address.rpartition(":")[2] or "0"
        command = ("prepaid", "api", "--share-port", "--port", port, "--json")
        process, address = stack.enter_context(_serving(command, environment, folder))
        processes.append(process.pid)
    return processes, address


@contextmanager
def _serving(
    module: Sequence[str], environment: Mapping[str, str], folder: Path
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port that says its address: the process and that. Errors: LoadError."""
    log = folder / f"{module[0]}.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    with process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            if not address:
                said = log.read_text(encoding="utf-8")[-300:]
                raise LoadError("api_failed", f"The API did not start: {said}")
            yield process, address
        finally:
            process.terminate()
            process.wait(STOP_S)
