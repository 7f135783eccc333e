"""The folder of a mosquitto of ours: configuration, access list, passwords, keys, revocations.

The same for the private broker and for one that stands alone. Files belong to the broker's account
and to nobody else; the folder is ours, so that the account cannot turn a file elsewhere by a link.
Passwords and pre-shared keys are state: a line stays until it is changed or forgotten.
"""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.folders import Account
from prepaid.runtime.mosquitto_files import (
    AUTOSAVE_INTERVAL_S,
    Listener,
    ServerTls,
    key_line,
    password_line,
    render_access_list,
    render_configuration,
    users_of,
)

OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class BrokerFolder:
    """`folder` is ours; its `state` is where the broker writes, under `account`."""

    folder: Path
    account: Account

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def configuration(self) -> Path:
        return self.folder / "mosquitto.conf"

    @property
    def access_list(self) -> Path:
        return self.folder / "access"

    @property
    def passwords(self) -> Path:
        return self.folder / "passwords"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def revocations(self) -> Path:
        return self.folder / "crl.pem"

    @property
    def pid_file(self) -> Path:
        return self.state / "mosquitto.pid"

    def server_tls(self, *, certificates: bool) -> ServerTls:
        """TLS of a listener, from the files of `write_server`; `certificates`: clients show one."""
        certificate, key = self.folder / "server.pem", self.folder / "server.key"
        if not certificates:
            return ServerTls(certificate, key)
        return ServerTls(certificate, key, self.folder / "ca.pem", self.revocations)

    # --- what is written --------------------------------------------------------------------

    def make(self) -> None:
        """Folder and state folder. Errors: those of `Account.make_folder`."""
        self.account.make_folder(self.state)

    def write_configuration(
        self,
        listeners: Sequence[Listener],
        *,
        protected: bool,
        count_refusals: bool = False,
        autosave_interval_s: int = AUTOSAVE_INTERVAL_S,
    ) -> None:
        """`protected`: with access list, passwords and keys. Errors: `listener_open`."""
        access = (
            f"acl_file {self.access_list}",
            f"password_file {self.passwords}",
            f"psk_file {self.keys}",
        )
        text = render_configuration(
            self.state,
            listeners,
            access if protected else (),
            count_refusals=count_refusals,
            autosave_interval_s=autosave_interval_s,
        )
        if protected:
            for path in (self.passwords, self.keys):
                if not path.exists():
                    self._write(path, b"")
        self._write(self.configuration, text.encode())

    def write_access_list(self, claims: Sequence[str] = ()) -> None:
        self._write(self.access_list, render_access_list(claims).encode())

    def write_server(self, certificate: bytes, private_key: bytes, ca: bytes) -> None:
        """The broker's own certificate and key, and the authority whose clients it admits."""
        self._write(self.folder / "ca.pem", ca)
        self._write(self.folder / "server.pem", certificate)
        self._write(self.folder / "server.key", private_key)

    def write_revocations(self, pem: bytes) -> None:
        self._write(self.revocations, pem)

    def set_passwords(self, passwords: dict[str, str]) -> None:
        """Give users new passwords; others keep theirs."""
        lines = dict(self._users(self.passwords))
        lines |= {user: password_line(user, text) for user, text in passwords.items()}
        self._write_users(self.passwords, lines)

    def set_key(self, user: str, key: bytes) -> None:
        """Give a device a pre-shared key."""
        self._write_users(self.keys, self._users(self.keys) | {user: key_line(user, key)})

    def forget(self, user: str) -> bool:
        """Take password and key of a user away; False where there were none."""
        found = False
        for path in (self.passwords, self.keys):
            lines = self._users(path)
            if lines.pop(user, None) is not None:
                found = True
                self._write_users(path, lines)
        return found

    # --- what is there ----------------------------------------------------------------------

    def users(self) -> set[str]:
        """Who has a password or a pre-shared key."""
        return {*self._users(self.passwords), *self._users(self.keys)}

    def reload(self) -> bool:
        """Let the broker read its access list, passwords, keys, certificates and revocations anew.

        mosquitto then ends the connections of users whose password is gone or changed; those with
        a certificate it leaves alone. False if no broker runs on this folder.
        """
        pid = self.pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGHUP)
        return True

    def pid(self) -> int | None:
        """The broker that runs on this folder."""
        try:
            pid = int(self.pid_file.read_text(encoding="ascii").split("\n", 1)[0])
            name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        # A pid file outlives a machine that lost its power; its number may be another's by now.
        return pid if name == "mosquitto" else None

    def _users(self, path: Path) -> dict[str, str]:
        try:
            return dict(users_of(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except OSError as error:
            message = f"Cannot read {path} ({error.strerror}): run this as its owner or as root."
            raise RuntimeUnavailableError("folder_refused", message) from None

    def _write_users(self, path: Path, lines: dict[str, str]) -> None:
        self._write(path, "".join(f"{line}\n" for line in lines.values()).encode())

    def _write(self, path: Path, content: bytes) -> None:
        """Whole or not at all, closed to others from the first byte."""
        draft = path.with_name(f"{path.name}.draft")
        try:
            draft.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(draft, flags, OWNER_ONLY), "wb") as file:
                file.write(content)
                if self.account.switched:
                    os.fchown(file.fileno(), self.account.uid, self.account.gid)
            draft.replace(path)
        except OSError as error:
            message = f"Cannot write {path} ({error.strerror}): name a folder of your own."
            raise RuntimeUnavailableError("folder_refused", message) from None
