"""Database and broker together: own servers where their addresses are given, private ones else."""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from prepaid.runtime.binaries import Binaries
from prepaid.runtime.folders import Account, Folders
from prepaid.runtime.mosquitto import Access, Mosquitto
from prepaid.runtime.mosquitto_files import AUTOSAVE_INTERVAL_S
from prepaid.runtime.postgres import Postgres
from prepaid.runtime.resolver import resolve

DATABASE_VARIABLE = "PREPAID_DATABASE__URL"
OWNER_VARIABLE = "PREPAID_DATABASE__OWNER_URL"
BROKER_VARIABLE = "PREPAID_BROKER__URL"


class Instance:
    """`with Instance(progress) as instance: instance.database_url, instance.broker_url`

    `postgres` and `mosquitto` are None where an own server is used.
    """

    def __init__(
        self,
        progress: Callable[[str], None],
        environ: Mapping[str, str] = os.environ,
        folders: Folders | None = None,
        account: Account | None = None,
        access: Access | None = None,
        *,
        autosave_interval_s: int = AUTOSAVE_INTERVAL_S,
    ) -> None:
        """`access` is what a private broker admits; None: whoever is on this machine. It writes a
        snapshot of its state every `autosave_interval_s`.
        """
        self._progress = progress
        self._environ = environ
        self._folders = folders if folders is not None else Folders.choose(environ)
        self._account = account
        self._access = access
        self._autosave_interval_s = autosave_interval_s
        self._stack = ExitStack()
        self.binaries: Binaries | None = None
        self.postgres: Postgres | None = None
        self.mosquitto: Mosquitto | None = None

    @property
    def database_url(self) -> str:
        """The address of who owns the schema: for migrations, and for databases of a test's own."""
        if self.postgres is not None:
            return self.postgres.url
        return self._environ.get(OWNER_VARIABLE) or self._environ[DATABASE_VARIABLE]

    @property
    def application_url(self) -> str:
        """The address that the programs connect to."""
        if self.postgres is not None:
            return self.postgres.application_url
        return self._environ[DATABASE_VARIABLE]

    @property
    def broker_url(self) -> str:
        if self.mosquitto is not None:
            return self.mosquitto.url
        return self._environ[BROKER_VARIABLE]

    def start(self) -> None:
        """Errors: those of `resolve`, `Postgres.start` and `Mosquitto.start`; nothing runs then."""
        own_database = bool(self._environ.get(DATABASE_VARIABLE))
        own_broker = bool(self._environ.get(BROKER_VARIABLE))
        if own_database and own_broker:
            return
        account = self._account if self._account is not None else Account.choose()
        self.binaries = resolve(self._progress, self._environ, self._folders)
        account.require_entry(self.binaries.postgres.bin)
        with ExitStack() as stack:
            if not own_database:
                data_dir = self._folders.data / "postgresql"
                self._progress(f"Starting PostgreSQL {self.binaries.postgres.version}")
                self.postgres = stack.enter_context(
                    Postgres(self.binaries.postgres, data_dir, account)
                )
            if not own_broker:
                data_dir = self._folders.data / "mosquitto"
                self._progress(f"Starting mosquitto {self.binaries.mosquitto.version}")
                self.mosquitto = stack.enter_context(
                    Mosquitto(
                        self.binaries.mosquitto,
                        data_dir,
                        account,
                        self._access,
                        autosave_interval_s=self._autosave_interval_s,
                    )
                )
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Ends what was started here, the broker first. Safe to call twice."""
        self._stack.close()

    def failed(self) -> str | None:
        """The name of a server that ended by itself, or None."""
        for server, name in ((self.postgres, "PostgreSQL"), (self.mosquitto, "mosquitto")):
            if server is not None and not server.running():
                return f"{name}: see {server.log}"
        return None

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
