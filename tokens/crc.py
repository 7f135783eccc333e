"""The 16-bit check of a token (IEC 62055-41 6.3.14 and, for currency, the CRC_C variant)."""

POLYNOMIAL_REFLECTED = 0xA001
# A currency token hashes one byte more, so that it can never pass for a unit token.
CURRENCY_SUFFIX = b"\x01"


def _row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL_REFLECTED if byte & 1 else 0)
    return byte


TABLE = tuple(_row(byte) for byte in range(256))


def crc16(octets: bytes) -> int:
    """CRC-16/MODBUS of `octets`: reflected 0x8005, initial value 0xFFFF."""
    crc = 0xFFFF
    for octet in octets:
        crc = crc >> 8 ^ TABLE[(crc ^ octet) & 0xFF]
    return crc


def token_crc(head: int, *, currency: bool = False) -> int:
    """The CRC field of a token whose Class, SubClass and content (2 + 4 + 44 bits) are `head`.

    >>> f"{token_crc(0x00004A2D900FF2):04X}"
    '0FFA'
    """
    crc = crc16(head.to_bytes(7, "big") + (CURRENCY_SUFFIX if currency else b""))
    # The field holds the low byte first.
    return (crc & 0xFF) << 8 | crc >> 8
