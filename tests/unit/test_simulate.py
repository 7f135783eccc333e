import pytest

from prepaid.commands.simulate import _broker
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
