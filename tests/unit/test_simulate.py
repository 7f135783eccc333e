import pytest

from prepaid.commands.simulate import _broker, simulate
from prepaid.scenarios.catalogue import SCENARIOS
from schemas.errors import DomainError
from simulators.fleet import Broker


@pytest.mark.parametrize(
    ("text", "broker"),
    [
        ("localhost", Broker("localhost", 1883)),
        ("127.0.0.1:18883", Broker("127.0.0.1", 18883)),
        ("mqtt://127.0.0.1:18883", Broker("127.0.0.1", 18883)),
    ],
)
def test_brokers_are_named_by_host_and_port(text: str, broker: Broker) -> None:
    assert _broker(text) == broker


@pytest.mark.parametrize("text", ["host:", ":1883", "host:port"])
def test_a_broker_without_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(DomainError) as caught:
        _broker(text)
    assert caught.value.code == "bad_broker"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_says_what_happens_and_what_must_be_true(name: str) -> None:
    assert SCENARIOS[name].happens
    assert SCENARIOS[name].must


def test_the_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    simulate(listing=True)
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(SCENARIOS)


@pytest.mark.parametrize(
    ("asked", "code"), [(["nonsense"], "no_such_scenario"), (None, "nothing_to_simulate")]
)
def test_what_cannot_be_simulated_is_refused(asked: list[str] | None, code: str) -> None:
    with pytest.raises(DomainError) as caught:
        simulate(scenario=asked)
    assert caught.value.code == code
