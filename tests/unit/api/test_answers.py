import pytest

from api.answers import percent, spoken
from api.errors import STATUS, DomainError, pointer, status_of
from api.numbers import masked
from store import errors as store_errors


def test_an_explanation_is_spoken_in_the_words_of_the_contract() -> None:
    recorded = {
        "registers": {"from": {"at_ms": 0, "wh": 5}},
        "valid_from": "2026-01-01",
        "blocks": [{"wh": 10, "price_micro_per_wh": 2459, "amount_micro": 24590}],
        "taxes": [{"ppm": 160_000, "included": False, "amount_micro": -1}],
        "share_ppm": 5,
    }
    assert spoken(recorded) == {
        "registers": {"from": {"at": "1970-01-01T00:00:00Z", "wh": 5}},
        "tariff_version": "2026-01-01",
        "blocks": [{"wh": 10, "price": "2.459000", "amount": "0.024590"}],
        "taxes": [{"percent": "16.0000", "included": False, "amount": "-0.000001"}],
        "share_percent": "0.0005",
    }


def test_percent_is_exact() -> None:
    assert [percent(ppm) for ppm in (0, 1, 160_000, 1_000_000)] == [
        "0.0000",
        "0.0001",
        "16.0000",
        "100.0000",
    ]


@pytest.mark.parametrize(
    ("location", "wanted"),
    [
        (("body", "amount"), "/amount"),
        (("body", "account", "terms", 0, "a/b~c"), "/account/terms/0/a~1b~0c"),
        (("body",), ""),
        (("body", 17), ""),
        (("query", "limit"), "?limit"),
        (("path", "entry"), "{entry}"),
    ],
)
def test_a_fault_is_named_by_its_place(location: tuple[object, ...], wanted: str) -> None:
    assert pointer(location) == wanted


def test_every_refusal_has_a_status() -> None:
    def below(kind: type[DomainError]) -> list[type[DomainError]]:
        return [kind, *(each for sub in kind.__subclasses__() for each in below(sub))]

    assert {store_errors.NotFound, store_errors.Conflict} <= STATUS.keys()
    for kind in below(DomainError):
        error = kind.__new__(kind)
        assert 400 <= status_of(error) < 600


def test_a_masked_name_shows_initials_only() -> None:
    assert masked("Aminata  Sow") == "A••• S•••"
    assert masked("") == ""
