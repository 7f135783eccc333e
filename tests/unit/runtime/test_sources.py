from pathlib import Path

import pytest

from prepaid.runtime.sources import Mirror, Source, find_mirror, parse_deb822, parse_one_line
from prepaid.runtime.sources import read_sources as read

ARCHIVE = "http://mirror.invalid/debian"
SECURITY = "http://mirror.invalid/debian-security"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"deb {ARCHIVE} trixie main", Source(ARCHIVE, "trixie", ("main",))),
        (
            f"deb {ARCHIVE} trixie main contrib # all",
            Source(ARCHIVE, "trixie", ("main", "contrib")),
        ),
        (
            f"deb [arch=amd64 signed-by=/k.gpg] {ARCHIVE} trixie main",
            Source(ARCHIVE, "trixie", ("main",), "/k.gpg"),
        ),
        (
            "deb\t[ trusted=no ]   https://user:word@mirror.invalid/debian\ttrixie  main",
            Source("https://user:word@mirror.invalid/debian", "trixie", ("main",)),
        ),
        (f"deb-src {ARCHIVE} trixie main", None),
        (f"# deb {ARCHIVE} trixie main", None),
        ("", None),
        ("deb", None),
        (f"deb {ARCHIVE} ./", Source(ARCHIVE, "./", ())),
    ],
)
def test_one_line_source(line: str, expected: Source | None) -> None:
    assert list(parse_one_line(f"{line}\n")) == ([expected] if expected else [])


def test_deb822_stanza_gives_each_address_and_suite() -> None:
    text = f"""\
# a comment
Types: deb deb-src
# another, inside
URIs: {ARCHIVE}
 http://second.invalid/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /k.gpg
"""
    assert list(parse_deb822(text)) == [
        Source(uri, suite, ("main",), "/k.gpg")
        for uri in (ARCHIVE, "http://second.invalid/debian")
        for suite in ("trixie", "trixie-updates")
    ]


@pytest.mark.parametrize("field", ["Enabled: no", "enabled: false", "Types: deb-src"])
def test_disabled_deb822_stanza_is_left_out(field: str) -> None:
    types = "" if field.startswith("Types") else "Types: deb\n"
    text = f"{types}URIs: {ARCHIVE}\nSuites: trixie\nComponents: main\n{field}\n"
    assert list(parse_deb822(text)) == []


def test_stanzas_are_separated_by_blank_lines() -> None:
    stanza = "Types: deb\nURIs: {}\nSuites: trixie\nComponents: main\n"
    text = stanza.format(ARCHIVE) + "\n \n" + stanza.format(SECURITY)
    assert [source.uri for source in parse_deb822(text)] == [ARCHIVE, SECURITY]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([Source(ARCHIVE, "bookworm", ("main",))], Mirror(ARCHIVE, None)),
        (
            [
                Source(SECURITY, "bookworm-security", ("main",)),
                Source("http://third.invalid", "nodistro", ("main",)),
                Source(ARCHIVE, "bookworm-updates", ("main",)),
                Source(ARCHIVE, "bookworm", ("main",)),
                Source("http://later.invalid", "bookworm", ("main",)),
            ],
            Mirror(ARCHIVE, SECURITY),
        ),
        ([Source(ARCHIVE, "bookworm", ("contrib",))], None),
        ([Source("http://other.invalid", "noble", ("main",))], None),
        ([Source(SECURITY, "bookworm-security", ("main",))], None),
        ([], None),
    ],
)
def test_mirror_is_the_first_of_the_debian_archive(
    sources: list[Source], expected: Mirror | None
) -> None:
    assert find_mirror(sources) == expected


def test_all_files_are_read_in_the_order_of_apt(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.invalid trixie main\n")
    (parts / "b.list").write_text("deb http://b.invalid trixie main\n")
    (parts / "a.sources").write_text(
        "Types: deb\nURIs: http://c.invalid\nSuites: trixie\nComponents: main\n"
    )
    (parts / "old.list.save").write_text("deb http://no.invalid trixie main\n")
    (parts / "bytes.list").write_bytes(b"\xff\xfe")
    assert [source.uri for source in read(tmp_path)] == [
        "http://a.invalid",
        "http://b.invalid",
        "http://c.invalid",
    ]


def test_host_without_apt_has_no_sources(tmp_path: Path) -> None:
    assert read(tmp_path / "missing") == ()


def test_printed_mirror_hides_credentials() -> None:
    assert "word" not in repr(Mirror("https://user:word@mirror.invalid", None))
