"""A private PostgreSQL with TimescaleDB on the loopback interface, durable by its settings."""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from prepaid.runtime.binaries import PostgresBinaries
from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Account
from prepaid.runtime.server_process import LOOPBACK, FolderLock, ServerProcess, keep_port

# Who owns the schema, and who the programs connect as (docs/adr/0009).
ROLE = "prepaid"
LOGIN = "prepaid_login"
DATABASE = "prepaid"
# From here on initdb knows the C library's character classes without the host's locales.
BUILTIN_LOCALE_MAJOR = 17
# The line of postmaster.pid that tells the state, and what it says when clients are served.
STATE_LINE, STATE_READY = 7, "ready"
MIN_BUFFERS_MIB, MAX_BUFFERS_MIB = 128, 2048


def render_configuration(port: int, memory_mib: int, standbys: Sequence[str] = ()) -> str:
    """postgresql.conf for one host with `memory_mib` of memory, shared with our other processes.

    What is acknowledged to a meter is on disk: fsync and synchronous_commit stay on. With
    `standbys` it is on the disk of one of those too, by name.
    """
    buffers_mib = min(max(memory_mib // 8, MIN_BUFFERS_MIB), MAX_BUFFERS_MIB)
    settings = {
        "listen_addresses": f"'{LOOPBACK}'",
        "port": str(port),
        "unix_socket_directories": "''",
        "max_connections": "100",
        "password_encryption": "'scram-sha-256'",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        # "on" would be pglz, the slower of the two.
        "wal_compression": "lz4",
        "max_wal_size": "'2GB'",
        "checkpoint_timeout": "'10min'",
        "shared_buffers": f"'{buffers_mib}MB'",
        "effective_cache_size": f"'{max(memory_mib // 2, 256)}MB'",
        "maintenance_work_mem": "'128MB'",
        "work_mem": "'16MB'",
        # Mapped memory needs no /dev/shm, which containers keep small.
        "dynamic_shared_memory_type": "mmap",
        "jit": "off",
        "shared_preload_libraries": "'timescaledb'",
        "timescaledb.telemetry_level": "off",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
        "log_min_messages": "warning",
        "logging_collector": "off",
        # A standby that stays away must not fill this server's disk.
        "max_slot_wal_keep_size": "'8GB'",
    }
    if standbys:
        settings["synchronous_standby_names"] = f"'ANY 1 ({', '.join(standbys)})'"
    lines = [f"{name} = {value}\n" for name, value in settings.items()]
    return (
        "# Written at every start; settings of your own go into postgresql.auto.conf.\n"
        + "".join(lines)
    )


def render_access() -> str:
    """pg_hba.conf: our two roles by password over loopback, nobody else; standbys as the owner."""
    return (
        f"host all {ROLE},{LOGIN} {LOOPBACK}/32 scram-sha-256\n"
        f"host replication {ROLE} {LOOPBACK}/32 scram-sha-256\n"
    )


class Postgres:
    """`with Postgres(binaries, folder, account) as server: server.url`

    The folder keeps the cluster, the password and the port; a start on it finds everything again.
    """

    def __init__(self, binaries: PostgresBinaries, data_dir: Path, account: Account) -> None:
        self._binaries = binaries
        self._folder = data_dir
        self._owned = data_dir / "server"
        self._cluster = self._owned / f"cluster-{binaries.major}"
        self._account = account
        self._lock = FolderLock(data_dir)
        self._process = ServerProcess(
            "postgresql", self._cluster, data_dir / "postgresql.log", account
        )
        self._port = 0
        self._standbys: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """`postgresql://prepaid:PASSWORD@127.0.0.1:PORT/prepaid`, the owner's: holds a secret."""
        return f"postgresql://{ROLE}:{self._password()}@{LOOPBACK}:{self.port}/{DATABASE}"

    @property
    def application_url(self) -> str:
        """The programs' address; a migration makes its login. Holds a secret."""
        path = self._folder / "application-password"
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(24))
        password = path.read_text(encoding="ascii").strip()
        return f"postgresql://{LOGIN}:{password}@{LOOPBACK}:{self.port}/{DATABASE}"

    @property
    def port(self) -> int:
        """Errors: `not_running` before the first start."""
        if self._port == 0:
            raise RuntimeUnavailableError("not_running", "PostgreSQL has no port: start it first.")
        return self._port

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> Path:
        return self._process.log

    def running(self) -> bool:
        return self._process.running()

    def start(self) -> None:
        """Makes the cluster if there is none, and serves. A second start keeps the port.

        Errors: `already_running`, `start_failed`, `initdb_failed`, `other_postgres_major`, and
        those of `Account.make_folder`.
        """
        self._account.make_folder(self._owned)
        self._lock.acquire()
        try:
            self._process.end_leftover(self._pid_file, signal.SIGINT)
            if self._port == 0:
                self._port = keep_port(self._folder, "postgresql")
            if not self._cluster.exists():
                self._make_cluster()
            self._write_configuration()
            access = self._folder / "pg_hba.conf"
            access.write_text(render_access(), encoding="utf-8")
            self._process.start(
                [
                    str(self._binaries.bin / "postgres"),
                    "-D",
                    str(self._cluster),
                    f"--config_file={self._configuration}",
                    f"--hba_file={access}",
                ],
                self._ready,
                self._environ(),
            )
            self._make_database()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Fast shutdown: running transactions are rolled back, the rest is checkpointed."""
        self._process.stop(signal.SIGINT)
        self._lock.release()

    def kill(self) -> None:
        """Ends all of its processes with SIGKILL. The next start recovers from the log."""
        self._process.kill()

    def clone(self, data_dir: Path, name: str) -> "Postgres":
        """A standby of this running server, called `name`, in a folder of its own: not started.

        It follows from the instant of the copy on; what it missed is kept for it in a slot of that
        name. Errors: `already_running`, `basebackup_failed`, and those of `Account.make_folder`.
        """
        standby = Postgres(self._binaries, data_dir, self._account)
        self._account.make_folder(standby._owned)
        standby._lock.acquire()
        try:
            shutil.rmtree(standby._cluster, ignore_errors=True)
            staged = standby._owned / "cluster.new"
            shutil.rmtree(staged, ignore_errors=True)
            where = f"host={LOOPBACK} port={self.port} user={ROLE} application_name={name}"
            self._run(
                "basebackup_failed",
                [
                    "pg_basebackup",
                    f"--dbname={where}",
                    f"--pgdata={staged}",
                    "--wal-method=stream",
                    "--checkpoint=fast",
                    "--write-recovery-conf",
                    "--create-slot",
                    f"--slot={name}",
                ],
            )
            staged.rename(standby._cluster)
            for kept in ("password", "application-password"):
                if (self._folder / kept).exists():
                    _write_private(data_dir / kept, (self._folder / kept).read_text("ascii"))
            (data_dir / "database.made").touch()
        finally:
            standby._lock.release()
        return standby

    def wait_for(self, *standbys: str) -> None:
        """From now on a commit is told as done when one of these has it on disk; none: alone."""
        self._standbys = standbys
        self._write_configuration()
        os.kill(self.pid, signal.SIGHUP)

    def promote(self) -> None:
        """A standby takes over: it ends recovery and takes writes. Errors: `promote_failed`."""
        self._run("promote_failed", ["pg_ctl", "promote", f"--pgdata={self._cluster}", "--wait"])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _pid_file(self) -> Path:
        return self._cluster / "postmaster.pid"

    @property
    def _configuration(self) -> Path:
        return self._folder / "postgresql.conf"

    def _write_configuration(self) -> None:
        text = render_configuration(self._port, _memory_mib(), self._standbys)
        self._configuration.write_text(text, encoding="utf-8")

    def _ready(self, pid: int) -> bool:
        try:
            lines = self._pid_file.read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return (
            len(lines) > STATE_LINE
            and lines[0] == str(pid)
            and lines[STATE_LINE].strip() == STATE_READY
        )

    def _make_cluster(self) -> None:
        others = sorted(self._owned.glob("cluster-*[0-9]"))
        if others:
            message = (
                f"{others[-1]} was made by another PostgreSQL than {self._binaries.major}: "
                "upgrade it with pg_upgrade, or set PREPAID_HOME to a new folder."
            )
            raise RuntimeUnavailableError("other_postgres_major", message)
        staged = self._owned / "cluster.new"
        shutil.rmtree(staged, ignore_errors=True)
        (self._folder / "database.made").unlink(missing_ok=True)
        password = secrets.token_urlsafe(24)
        _write_private(self._folder / "password", password)
        handed = self._owned / "password.new"
        _write_private(handed, password)
        if self._account.switched:
            os.chown(handed, self._account.uid, self._account.gid, follow_symlinks=False)
        locale = (
            ["--locale-provider=builtin", "--locale=C.UTF-8"]
            if self._binaries.major >= BUILTIN_LOCALE_MAJOR
            else ["--locale=C.UTF-8"]
        )
        self._run(
            "initdb_failed",
            [
                "initdb",
                f"--pgdata={staged}",
                f"--username={ROLE}",
                f"--pwfile={handed}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--data-checksums",
                *locale,
            ],
        )
        handed.unlink()
        # The name appears only when the cluster is whole.
        staged.rename(self._cluster)

    def _make_database(self) -> None:
        made = self._folder / "database.made"
        if made.exists():
            return
        try:
            self._run("createdb_failed", ["createdb", "-h", LOOPBACK, DATABASE])
        except RuntimeUnavailableError as error:
            # An earlier start was interrupted between the two steps.
            if "already exists" not in str(error):
                raise
        made.touch()

    def _run(self, code: str, command: list[str]) -> None:
        outcome = subprocess.run(
            [str(self._binaries.bin / command[0]), *command[1:]],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self._owned,
            env=dict(self._environ()),
            user=self._account.popen_user,
            group=self._account.popen_group,
            extra_groups=self._account.popen_extra_groups,
        )
        if outcome.returncode != 0:
            reason = " ".join(outcome.stderr.split()) or "no message"
            message = f"{command[0]} failed ({reason}): mend this and start again."
            raise RuntimeUnavailableError(code, message)

    def _environ(self) -> Mapping[str, str]:
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LC_ALL": "C.UTF-8" if self._binaries.major < BUILTIN_LOCALE_MAJOR else "C",
            "HOME": str(self._owned),
            "PGUSER": ROLE,
            "PGPASSWORD": self._password(),
            "PGPORT": str(self._port),
        }

    def _password(self) -> str:
        try:
            return (self._folder / "password").read_text(encoding="ascii").strip()
        except OSError:
            return ""


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024)
