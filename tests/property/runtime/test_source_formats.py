"""Both formats of sources.list(5) say the same."""

from hypothesis import given
from hypothesis import strategies as st

from prepaid.runtime.sources import Source, parse_deb822, parse_one_line

WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=12)
SOURCES = st.lists(
    st.builds(
        Source,
        uri=st.builds("https://{}.invalid/{}".format, WORD, WORD),
        suite=WORD,
        components=st.lists(WORD, min_size=1, max_size=3).map(tuple),
        signed_by=st.none() | WORD.map("/usr/share/keyrings/{}".format),
    ),
    max_size=5,
)


def one_line(source: Source) -> str:
    options = f"[signed-by={source.signed_by}] " if source.signed_by else ""
    return f"deb {options}{source.uri} {source.suite} {' '.join(source.components)}\n"


def deb822(source: Source) -> str:
    signed_by = f"Signed-By:\n {source.signed_by}\n" if source.signed_by else ""
    components = "".join(f"\n {component}" for component in source.components)
    return (
        f"Types: deb\nURIs: {source.uri}\nSuites: {source.suite}\n"
        f"{signed_by}Components:{components}\n\n"
    )


@given(SOURCES)
def test_both_formats_give_the_same_sources(sources: list[Source]) -> None:
    assert list(parse_one_line("".join(map(one_line, sources)))) == sources
    assert list(parse_deb822("".join(map(deb822, sources)))) == sources
