import pytest

from meter_gateway.foreign.keys import DeviceKeys, GlobalKey, SealingKey, seal, unseal
from schemas.errors import DomainError

KEYS = DeviceKeys(GlobalKey(bytes(range(16))), GlobalKey(bytes(range(16, 32))))
SEALING = SealingKey(bytes(range(32, 64)))
PLACE = ("dlms-push", "M1")
SEALED = seal(KEYS, SEALING, PLACE, bytes(12))


def test_keys_open_under_the_key_and_for_the_device_they_were_sealed_for() -> None:
    assert unseal(SEALED, SEALING, PLACE) == KEYS


def test_nothing_of_a_key_stands_in_its_form_at_rest_or_in_a_report() -> None:
    for key in (KEYS.encryption, KEYS.authentication, SEALING):
        assert key.reveal() not in SEALED
        assert key.reveal().hex() not in repr(KEYS) + repr(SEALING)


@pytest.mark.parametrize(
    ("sealed", "sealing", "place"),
    [
        (SEALED, SealingKey(bytes(range(33, 65))), PLACE),
        (SEALED, SEALING, ("dlms-push", "M2")),
        (SEALED, SEALING, ("dlms-other", "M1")),
        (SEALED[:-1] + b"\x00", SEALING, PLACE),
        (b"\x02" + SEALED[1:], SEALING, PLACE),
        (SEALED[:9], SEALING, PLACE),
        (b"", SEALING, PLACE),
    ],
)
def test_keys_of_another_place_or_key_do_not_open(
    sealed: bytes, sealing: SealingKey, place: tuple[str, str]
) -> None:
    with pytest.raises(DomainError) as refused:
        unseal(sealed, sealing, place)
    assert refused.value.code == "sealed_keys"


@pytest.mark.parametrize(("made", "octets"), [(GlobalKey, 15), (GlobalKey, 32), (SealingKey, 16)])
def test_a_key_of_another_length_is_refused(made: type, octets: int) -> None:
    with pytest.raises(DomainError) as refused:
        made(bytes(octets))
    assert refused.value.code == "bad_key"


def test_a_nonce_has_twelve_octets() -> None:
    with pytest.raises(DomainError):
        seal(KEYS, SEALING, PLACE, bytes(11))
