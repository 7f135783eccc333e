"""RabbitMQ and its Erlang out of Debian's packages, in one folder that runs: for a cluster.

Nothing of the main job needs it, so it is fetched when asked for (about 47 MB). The same release as
PostgreSQL's: its RabbitMQ 4 speaks MQTT 5, where the one before it knows 3.1.1 alone.
"""

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prepaid.runtime.apt import SUITE, PrivateApt, Progress
from prepaid.runtime.debian import UNUSED_LIBRARIES
from prepaid.runtime.errors import RuntimeUnavailableError
from prepaid.runtime.relocate import find_patchelf, relocate

ROOT_PACKAGES = ("rabbitmq-server",)


@dataclass(frozen=True, slots=True)
class RabbitBinaries:
    """`home` is RabbitMQ's folder, `erlang` Erlang's root, `programs` the folder of its runtime."""

    home: Path
    erlang: Path
    programs: Path

    @property
    def version(self) -> str:
        """As its folder says: 4.0.5."""
        return self.home.name.rpartition("-")[2]


class RabbitPackages:
    """A private RabbitMQ below `cache`; see `find` and `fetch`."""

    def __init__(self, cache: Path, environ: Mapping[str, str]) -> None:
        folder = cache / f"rabbitmq-{SUITE}-{platform.machine()}"
        self.root = folder / "root"
        self._manifest = folder / "manifest.json"
        self._apt = PrivateApt(folder, environ)

    def find(self) -> RabbitBinaries | None:
        """What was fetched, if it was. Its files name this folder, so it cannot be moved."""
        try:
            manifest = json.loads(self._manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return self._below() if manifest.get("root") == str(self.root) else None

    def fetch(self, progress: Progress) -> RabbitBinaries:
        """Makes it ready: two callers at once share the work.

        Errors: those of `PrivateApt` and of `relocate`; `binary_broken`.
        """
        with self._apt.locked(progress):
            found = self.find()
            if found is not None:
                return found
            patchelf = find_patchelf()
            self._apt.update(progress)
            closure = self._apt.closure(ROOT_PACKAGES)
            packages = self._apt.packages({name: closure[name] for name in select(closure)})
            self._apt.download(packages, progress)
            progress(f"Unpacking {len(packages)} packages into {self.root}")
            self._apt.unpack(packages, self.root)
            relocate(self.root, patchelf)
            self._name_this_folder()
            found = self._below()
            if found is None:
                message = "No RabbitMQ in Debian's package: report this as a defect."
                raise RuntimeUnavailableError("binary_broken", message)
            record = {
                "root": str(self.root),
                "packages": [
                    {"name": each.name, "version": each.version, "sha256": each.sha256}
                    for each in packages
                ],
            }
            staged = self._manifest.with_suffix(".new")
            staged.write_text(json.dumps(record, indent=1), encoding="utf-8")
            staged.replace(self._manifest)
            self._apt.forget_packages()
            return found

    def _name_this_folder(self) -> None:
        """Erlang's start scripts have its folder written in; a joining node runs one."""
        for script in self.root.glob("usr/lib/erlang/erts-*/bin/erl"):
            text = script.read_text(encoding="utf-8")
            here = f"ROOTDIR={self.root}/usr/lib/erlang"
            script.write_text(text.replace("ROOTDIR=/usr/lib/erlang", here), encoding="utf-8")

    def _below(self) -> RabbitBinaries | None:
        homes = sorted(self.root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*"))
        programs = sorted(self.root.glob("usr/lib/erlang/erts-*/bin"))
        if not homes or not programs:
            return None
        return RabbitBinaries(homes[-1], self.root / "usr/lib/erlang", programs[-1])


def select(closure: Iterable[str]) -> tuple[str, ...]:
    """The names of `closure` whose files a node loads, in order: no Python, no Debian tools."""
    return tuple(
        sorted(
            name
            for name in closure
            if name in ROOT_PACKAGES
            or name.startswith("erlang-")
            or (
                name.startswith(("lib", "zlib"))
                and not name.startswith("libpython")
                and not UNUSED_LIBRARIES.match(name)
            )
        )
    )


def resolve_rabbitmq(cache: Path, environ: Mapping[str, str], progress: Progress) -> RabbitBinaries:
    """The fetched one, fetching it now where it is not there. Errors: those of `fetch`."""
    packages = RabbitPackages(cache, environ)
    found = packages.find()
    return found if found is not None else packages.fetch(progress)
