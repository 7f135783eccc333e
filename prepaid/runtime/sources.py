"""Finds the Debian mirror in the host's own apt sources, in both formats of sources.list(5)."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# Suites that name Debian itself. A third party's suite can be anything else.
DEBIAN_SUITES = frozenset(
    {"bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"}
)
SECURITY_SUFFIX = "-security"

_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>.+)")


@dataclass(frozen=True, slots=True)
class Source:
    """One binary source: an address may carry credentials, so it is never printed."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """Addresses of the archive and, if the host has one, of its security archive."""

    archive: str
    security: str | None

    def __repr__(self) -> str:
        return "Mirror(***)"


def parse_one_line(text: str) -> Iterator[Source]:
    """Sources of a `.list` file: `deb [options] uri suite components`."""
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.split("#", 1)[0].strip())
        if match is None:
            continue
        options = dict(
            pair.split("=", 1) for pair in (match["options"] or "").split() if "=" in pair
        )
        suite, *components = match["rest"].split()
        yield Source(match["uri"], suite, tuple(components), options.get("signed-by"))


def parse_deb822(text: str) -> Iterator[Source]:
    """Sources of a `.sources` file: stanzas of fields; a leading blank continues a field."""
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = _deb822_fields(stanza)
        if "deb" not in fields.get("types", "").split():
            continue
        if fields.get("enabled", "yes").lower() in {"no", "false", "off", "0", "without"}:
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, components, fields.get("signed-by") or None)


def _deb822_fields(stanza: str) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in {" ", "\t"}:
            if name:
                fields[name] = f"{fields[name]}\n{line.strip()}".strip()
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def read_sources(etc_apt: Path) -> tuple[Source, ...]:
    """All sources below `/etc/apt`, in the order in which apt reads them; unreadable ones left out.

    A file may be readable by root alone because it carries credentials.
    """
    found: list[Source] = []
    parts = etc_apt / "sources.list.d"
    for path in (
        etc_apt / "sources.list",
        *sorted(parts.glob("*.list")),
        *sorted(parts.glob("*.sources")),
    ):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        found.extend(parse_deb822(text) if path.suffix == ".sources" else parse_one_line(text))
    return tuple(found)


def find_mirror(sources: Iterable[Source]) -> Mirror | None:
    """The first source of Debian's main archive, with the first of its security archive."""
    archive: str | None = None
    security: str | None = None
    for source in sources:
        if "main" not in source.components:
            continue
        if archive is None and source.suite in DEBIAN_SUITES:
            archive = source.uri
        elif (
            security is None
            and source.suite.endswith(SECURITY_SUFFIX)
            and source.suite.removesuffix(SECURITY_SUFFIX) in DEBIAN_SUITES
        ):
            security = source.uri
    return Mirror(archive, security) if archive is not None else None
