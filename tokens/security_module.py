"""The one door to vending keys: ask for tokens, never for keys.

The Protocol is what vending is written against; an HSM behind PKCS#11 or a serial line stands
behind the same door as a shell of its own. SoftwareSecurityModule holds keys in this process: for
demonstration, test, and utilities that accept that.
"""

from collections.abc import Mapping
from typing import Protocol

from tokens import apdu, codec, credit, keys, management, tid
from tokens.apdu import Apdu
from tokens.credit import Credit
from tokens.errors import TokenError
from tokens.key_change import key_change_set
from tokens.keys import DecoderKey, KeyAttributes, VendingKey
from tokens.sta import SAMPLE_TABLES, SubstitutionTables


class SecurityModule(Protocol):
    """Tokens for one meter at a time. TIDs are the caller's: it must never use one twice."""

    def issue_credit(
        self,
        meter_pan: str,
        attributes: KeyAttributes,
        *,
        subclass: int,
        amount: int,
        tid_minutes: int,
        rnd: int,
    ) -> str:
        """20 digits worth at least `amount` smallest units of class 0, `subclass`."""
        ...

    def issue_management(
        self,
        meter_pan: str,
        attributes: KeyAttributes,
        *,
        subclass: int,
        fields: Mapping[str, int],
        tid_minutes: int,
        rnd: int,
    ) -> str:
        """20 digits of class 2, `subclass`; `fields` as in `management.management`."""
        ...

    def issue_key_change(
        self,
        meter_pan: str,
        old: KeyAttributes,
        new: KeyAttributes,
        *,
        tid_minutes: int,
        triplet: bool = False,
    ) -> tuple[str, ...]:
        """The set that moves the meter from `old` to `new`.

        `tid_minutes` is now, counted from the base date of `new`: an expired new key is refused,
        an expired old one is what the set is for. So is a KEN in `new` that is not the key's: the
        meter would be told another end than ours.
        """
        ...

    def verify(self, meter_pan: str, attributes: KeyAttributes, digits: str) -> Apdu:
        """The token that this meter would read in `digits`."""
        ...

    def key_check_value(self, sgc: str, krn: int) -> str:
        """Six hex digits by which people compare vending keys."""
        ...


class SoftwareSecurityModule:
    """Vending keys in memory, found by SGC and KRN.

    With `production`, EA07 tokens are refused while the tables are not the licensed ones: meters
    in the field would take none of them, and somebody has paid for each.
    """

    def __init__(
        self,
        vending_keys: Mapping[tuple[str, int], VendingKey],
        tables: SubstitutionTables = SAMPLE_TABLES,
        *,
        production: bool = False,
    ) -> None:
        self._vending_keys = dict(vending_keys)
        self._tables = tables
        self._production = production

    def __repr__(self) -> str:
        return f"<SoftwareSecurityModule, {len(self._vending_keys)} vending keys, {self._tables!r}>"

    def issue_credit(
        self,
        meter_pan: str,
        attributes: KeyAttributes,
        *,
        subclass: int,
        amount: int,
        tid_minutes: int,
        rnd: int,
    ) -> str:
        if attributes.kt == keys.DDTK:
            raise TokenError(
                "key_type_refused",
                "A meter under its default key (KT 1) answers credit with DDTKError; "
                "move it to KT 2 with a key change first.",
            )
        token = credit.transfer_credit(Credit(subclass, amount), tid=tid_minutes, rnd=rnd)
        return self._issue(meter_pan, attributes, token)

    def issue_management(
        self,
        meter_pan: str,
        attributes: KeyAttributes,
        *,
        subclass: int,
        fields: Mapping[str, int],
        tid_minutes: int,
        rnd: int,
    ) -> str:
        token = management.management(subclass, fields, tid=tid_minutes, rnd=rnd)
        return self._issue(meter_pan, attributes, token)

    def issue_key_change(
        self,
        meter_pan: str,
        old: KeyAttributes,
        new: KeyAttributes,
        *,
        tid_minutes: int,
        triplet: bool = False,
    ) -> tuple[str, ...]:
        key = self._vending_key(new)
        _demand_same_ken(new, key)
        _demand_live(tid_minutes, new, key)
        old_key, new_key = self._decoder_key(meter_pan, old), self._decoder_key(meter_pan, new)
        tokens = key_change_set(old, new, new_key, triplet=triplet)
        return tuple(self._encode(token, old_key) for token in tokens)

    def verify(self, meter_pan: str, attributes: KeyAttributes, digits: str) -> Apdu:
        return codec.decode(digits, self._decoder_key(meter_pan, attributes), self._tables)

    def key_check_value(self, sgc: str, krn: int) -> str:
        return self._find(sgc, krn).check_value

    def _issue(self, meter_pan: str, attributes: KeyAttributes, token: Apdu) -> str:
        tid_minutes = token.fields["tid"]
        _demand_live(tid_minutes, attributes, self._vending_key(attributes))
        if tid.is_reserved(tid_minutes):
            raise TokenError(
                "tid_out_of_range",
                f"TID {tid_minutes} is 00:01 of its day, which is reserved; take the next minute.",
            )
        return self._encode(token, self._decoder_key(meter_pan, attributes))

    def _encode(self, token: Apdu, key: DecoderKey) -> str:
        if self._production and key.ea == apdu.STA:
            self._tables.require_production()
        return codec.encode(token, key, self._tables)

    def _decoder_key(self, meter_pan: str, attributes: KeyAttributes) -> DecoderKey:
        return keys.decoder_key(self._vending_key(attributes), meter_pan, attributes)

    def _vending_key(self, attributes: KeyAttributes) -> VendingKey:
        key = self._find(attributes.sgc, attributes.krn)
        if key.base_date is not None and key.base_date != attributes.base_date:
            raise TokenError(
                "key_mismatch",
                f"The vending key of SGC {attributes.sgc}, KRN {attributes.krn} stands for base "
                f"date {key.base_date} and the meter for {attributes.base_date}; "
                "correct the meter's record or issue a key change.",
            )
        return key

    def _find(self, sgc: str, krn: int) -> VendingKey:
        key = self._vending_keys.get((sgc, krn))
        if key is None:
            raise TokenError(
                "key_unknown", f"No vending key for SGC {sgc}, KRN {krn}; load it or correct both."
            )
        return key


def _demand_live(tid_minutes: int, attributes: KeyAttributes, key: VendingKey) -> None:
    ken = attributes.ken if key.ken is None else min(attributes.ken, key.ken)
    if tid.is_expired(tid_minutes, ken):
        raise TokenError(
            "key_expired",
            f"The key of SGC {attributes.sgc}, KRN {attributes.krn} expired with KEN {ken} before "
            f"TID {tid_minutes}; issue a key change to a newer revision first.",
        )


def _demand_same_ken(new: KeyAttributes, key: VendingKey) -> None:
    if key.ken not in {None, new.ken}:
        raise TokenError(
            "key_mismatch",
            f"The vending key of SGC {new.sgc}, KRN {new.krn} has KEN {key.ken}, not {new.ken}; "
            "name the key's own, also where the key is adopted.",
        )
