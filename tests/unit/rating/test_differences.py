"""How a scenario's `expected` is compared with the result."""

from typing import Any

import pytest

from credit_engine.scenario_report import differences


@pytest.mark.parametrize(
    ("expected", "got", "lines"),
    [
        ({}, {"balance": "1"}, []),
        ({"balance": "1"}, {}, ["balance: expected '1', got nothing"]),
        ({"balance": "1"}, {"balance": 1}, ["balance: expected '1', got 1"]),
        ({"n": 1}, {"n": True}, ["n: expected 1, got True"]),
        ({"months": {"2026-03": {"charges": {"vat": "0.000000"}}}}, {"months": {}}, []),
        (
            {"months": {"2026-03": {"energy_wh": {"all": 1}}}},
            {"months": {}},
            ["months.2026-03: expected {'energy_wh': {'all': 1}}, got nothing"],
        ),
        ([{"a": 1}], [{"a": 1, "b": 2}], []),
        ([], [{"a": 1}], [": expected 0 items, got 1"]),
        (
            {"q": [{"a": 1}, {"a": 2}]},
            {"q": [{"a": 3}]},
            ["q: expected 2 items, got 1", "q[0].a: expected 1, got 3"],
        ),
        ({"lines": [{"price": "2.459"}]}, {"lines": [{"price": "2.459000"}]}, []),
        ({"lines": [{"price": "20"}]}, {"lines": [{"price": "2.000000"}]}, 1),
        ({"lines": {}}, {"lines": []}, ["lines: expected {}, got []"]),
    ],
)
def test_differences(expected: Any, got: Any, lines: Any) -> None:
    found = differences(expected, got)
    assert (len(found) if isinstance(lines, int) else found) == lines
