"""`prepaid doctor`: can this machine run the system, and if not, how is that mended?"""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import typer

from meter_gateway.receiver import parse_hosts
from prepaid.clock import wall_ms
from prepaid.database import connected
from prepaid.runtime import Account, Folders, RuntimeUnavailableError
from prepaid.runtime.apt import require_host
from prepaid.runtime.instance import BROKER_VARIABLE, DATABASE_VARIABLE, OWNER_VARIABLE
from prepaid.runtime.resolver import find_ready
from prepaid.runtime.server_process import port_is_free
from prepaid.security_modules import ea07_tables, told
from prepaid.settings import Settings
from prepaid.trust import health
from schemas.errors import DomainError
from store import key_changes, trust
from store.roles import connected_as
from store.server_facts import MAKE_UTF8, read_server_facts

MIN_PYTHON = (3, 11)
DISTRIBUTION = "prepaid"
PACKAGES = (
    "schemas", "credit_engine", "tokens", "store", "meter_gateway", "api", "payments", "simulators",
    "benchmarks", "partner_client", "prepaid",
)  # fmt: skip
# One database of 10,000 meters for a month, and the programs with their packages.
MIN_DATA_BYTES = 1_000_000_000
MIN_CACHE_BYTES = 500_000_000
CONNECT_TIMEOUT_S = 5
DEFAULT_BROKER_PORT = 1883


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `mend` says what to do and is empty where nothing is wrong."""

    name: str
    detail: str
    mend: str = ""

    @property
    def passed(self) -> bool:
        return not self.mend


def register(app: typer.Typer) -> None:
    app.command(name="doctor")(doctor)


def doctor(as_json: bool = typer.Option(False, "--json")) -> None:
    """Check this machine; exit status 1 if something must be mended."""
    checks = examine(os.environ)
    if as_json:
        rows = [{**asdict(check), "passed": check.passed} for check in checks]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        for check in checks:
            sys.stdout.write(
                f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.detail}\n"
            )
            if check.mend:
                sys.stdout.write(f"      -> {check.mend}\n")
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def examine(environ: Mapping[str, str]) -> list[Check]:
    """All checks, in the order in which they are mended. Starts and fetches nothing."""
    folders = Folders.choose(environ)
    checks = [
        check_python(sys.version_info[:3]),
        check_packages(packages_distributions(), _origin),
        *check_servers(environ, folders),
        *check_trust(),
        *check_tables(),
    ]
    if not (environ.get(DATABASE_VARIABLE) and environ.get(BROKER_VARIABLE)):
        checks += [
            check_account(folders),
            check_ports(folders.data),
            check_space("data disk", folders.data, MIN_DATA_BYTES, "PREPAID_HOME"),
            check_space("cache disk", folders.cache, MIN_CACHE_BYTES, "PREPAID_CACHE"),
        ]
    return checks


def check_python(version: tuple[int, ...]) -> Check:
    detail = ".".join(map(str, version))
    if version >= MIN_PYTHON:
        return Check("python", detail)
    return Check("python", detail, "Install Python 3.11 or newer and run scripts/up again.")


def check_packages(claims: Mapping[str, list[str]], origin: Callable[[str], Path | None]) -> Check:
    """Our packages have generic names: another distribution's must not stand in their place.

    `claims` maps a name to the distributions that install it; `origin` to the folder it has.
    """
    strangers = sorted(
        {other for name in PACKAGES for other in claims.get(name, [])} - {DISTRIBUTION}
    )
    if strangers:
        mend = f"Uninstall {', '.join(strangers)}, or delete .venv and run scripts/bootstrap."
        return Check("packages", f"claimed by {', '.join(strangers)} too", mend)
    home = origin("prepaid")
    astray = [
        name
        for name in PACKAGES
        if home is None or (at := origin(name)) is None or at.parent != home.parent
    ]
    if astray:
        mend = "Delete .venv and run scripts/bootstrap."
        return Check("packages", f"{', '.join(astray)} not found beside prepaid", mend)
    return Check("packages", f"all {len(PACKAGES)} are ours alone")


def _origin(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def check_servers(environ: Mapping[str, str], folders: Folders) -> list[Check]:
    """Database and broker: those given, or the programs that would be started."""
    database, broker = environ.get(DATABASE_VARIABLE), environ.get(BROKER_VARIABLE)
    found = [] if database and broker else _check_programs(environ, folders)
    by_name = {check.name: check for check in found}
    if database:
        by_name["database"] = check_own_database(database)
        if by_name["database"].passed:
            by_name["database role"] = check_role(database)
    if broker:
        by_name["broker"] = check_own_broker(broker)
    return list(by_name.values())


def check_trust() -> list[Check]:
    """Certificates that end, revocations that grow old, an access list that was changed."""
    settings = Settings()
    now_ms = wall_ms()
    claims: Sequence[str] | None = None
    ending = 0
    if settings.database.url is not None and (settings.trust.ca or settings.broker.folder):
        with contextlib.suppress(DomainError), connected(settings) as conn:
            claims = trust.claims(conn, now_ms)
            ending = trust.ending(conn, now_ms, now_ms + health.WARN_DAYS * health.DAY_MS)
    checks = [Check(*finding) for finding in health.examine(settings, now_ms, claims)]
    if ending:
        detail = f"{ending} recorded end within {health.WARN_DAYS} days"
        mend = "See `prepaid certs list`; renew them with `prepaid certs renew`."
        checks.append(Check("certificates", detail, mend))
    return checks


def check_tables() -> list[Check]:
    """EA07 meters take only tokens that are made with the production tables."""
    settings = Settings()
    if settings.sts.socket is not None and settings.sts.tables is None:
        # The process behind it has them, and says them in its log.
        return []
    mend = "Set PREPAID_STS__TABLES to the licensed table file."
    try:
        tables = ea07_tables(settings.sts)
    except DomainError as error:
        return [Check("EA07 tables", str(error), mend)]
    meters = 0
    if settings.database.url is not None:
        with contextlib.suppress(DomainError), connected(settings) as conn:
            meters = key_changes.sta_meters(conn)
    if not meters and settings.sts.tables is None:
        return []
    detail = f"{told(tables)}, for {meters} EA07 meters"
    if tables.is_production:
        return [Check("EA07 tables", detail)]
    return [Check("EA07 tables", f"{detail}: no real meter understands it", mend)]


def check_own_database(url: str) -> Check:
    """The server at PREPAID_DATABASE__URL; the address is not shown, since it holds a password."""
    mend = f"Start the server, or mend {DATABASE_VARIABLE}."
    try:
        facts = read_server_facts(url)
    except psycopg.Error as error:
        return Check("database", f"own server: {str(error).splitlines()[0]}", mend)
    detail = f"own server, PostgreSQL {facts.version}"
    if facts.timescaledb_version is None:
        mend = "Install the TimescaleDB extension on that server."
        return Check("database", f"{detail} without TimescaleDB", mend)
    if not facts.timescaledb_is_loaded:
        mend = "Add timescaledb to shared_preload_libraries of that server and restart it."
        return Check("database", f"{detail}, TimescaleDB not loaded", mend)
    if not facts.is_utf8:
        mend = f"{MAKE_UTF8[0].upper()}{MAKE_UTF8[1:]}."
        return Check("database", f"{detail}, a database not of UTF-8", mend)
    edition = facts.timescaledb_edition or "not yet in this database"
    return Check("database", f"{detail}, TimescaleDB {facts.timescaledb_version} ({edition})")


def check_role(url: str) -> Check:
    """The programs connect as somebody who can rewrite nothing that is recorded (ADR 0009)."""
    try:
        found = connected_as(url)
    except psycopg.Error as error:
        mend = f"Start the server, or mend {DATABASE_VARIABLE}."
        return Check("database role", str(error).splitlines()[0], mend)
    if not found.may_rewrite:
        return Check("database role", f"{found.name}, who can rewrite nothing that is recorded")
    return Check(
        "database role",
        f"{found.name} owns the schema or is a superuser",
        f"Set {OWNER_VARIABLE} to this address and {DATABASE_VARIABLE} to that of a login of its "
        "own (a new name and password), and run prepaid migrate: it makes the login.",
    )


def check_own_broker(url: str) -> Check:
    """The broker at PREPAID_BROKER__URL accepts connections: each of its nodes."""
    mend = f"Start the broker, or mend {BROKER_VARIABLE}."
    try:
        hosts = parse_hosts(urlsplit(url).netloc.rpartition("@")[2], DEFAULT_BROKER_PORT)
        for host, port in hosts:
            socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        return Check("broker", f"own broker: {error}", mend)
    return Check("broker", f"own broker at {', '.join(f'{host}:{port}' for host, port in hosts)}")


def _check_programs(environ: Mapping[str, str], folders: Folders) -> list[Check]:
    try:
        found = find_ready(environ, folders)
        if found is None:
            require_host(environ)
    except RuntimeUnavailableError as error:
        return [Check(name, "cannot be had", str(error)) for name in ("database", "broker")]
    if found is None:
        detail = "the first start fetches it from the Debian mirror (42 MB)"
        return [Check(name, detail) for name in ("database", "broker")]
    postgres, mosquitto = found.postgres, found.mosquitto
    return [
        Check(
            "database",
            f"{postgres.source}, PostgreSQL {postgres.version}, TimescaleDB "
            f"{postgres.timescaledb_version} ({postgres.timescaledb_edition})",
        ),
        Check("broker", f"{mosquitto.source}, mosquitto {mosquitto.version}"),
    ]


def check_account(folders: Folders) -> Check:
    """The servers' account, its way into both folders, and modes that keep others out."""
    try:
        account = Account.choose()
        for folder in (folders.data, folders.cache):
            existing = _nearest(folder)
            account.require_entry(existing)
            if existing != folder and not os.access(existing, os.W_OK):
                mend = "Set PREPAID_HOME and PREPAID_CACHE to folders that you can write."
                return Check("data folder", f"{existing} cannot be written", mend)
    except RuntimeUnavailableError as error:
        return Check("data folder", str(folders.data), str(error))
    private = [folders.data / "postgresql/password", folders.data / "postgresql/server"]
    for path in private:
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            continue
        if mode & 0o077:
            return Check("data folder", f"{path} is open to others", f"chmod go= {path}")
    return Check("data folder", f"{folders.data}, servers run as {account.name}")


def check_ports(data: Path) -> Check:
    """The ports of earlier starts: in use by us, free, or to be chosen anew (never a failure)."""
    kept = sorted(data.glob("*/*.port"))
    if not kept:
        return Check("ports", "chosen free at the first start")
    told = []
    for path in kept:
        port = int(path.read_text(encoding="ascii"))
        told.append(f"{path.stem} {port} {'free' if port_is_free(port) else 'in use'}")
    return Check("ports", ", ".join(told))


def check_space(name: str, folder: Path, least_bytes: int, variable: str) -> Check:
    free_bytes = shutil.disk_usage(_nearest(folder)).free
    detail = f"{free_bytes // 1_000_000} MB free for {folder}"
    if free_bytes >= least_bytes:
        return Check(name, detail)
    mend = f"Free {least_bytes // 1_000_000} MB, or set {variable} to a folder on a larger disk."
    return Check(name, detail, mend)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest parent that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())
