"""What the token side refuses.

`code` is for programs; the ones that a vector file may name are marked with *.

number_invalid        a MeterPAN, DRN, SGC or other identifier is malformed or fails its check digit
format_error*         not 20 digits, or a value that does not fit in 66 bits
unsupported_class*    class 3 is reserved
unsupported_subclass  no layout is known for this class, subclass and encryption algorithm
crc_error*            the block does not authenticate: other key, other meter, or mistyped
tid_out_of_range*     the instant lies outside the 24 bits of this base date
amount_out_of_range*  the amount does not fit its field
field_out_of_range    any other field of a token
key_invalid           a key of a wrong length or parity
key_unknown           no vending key for this SGC and KRN
key_expired           the TID lies in a period after the KEN
key_mismatch          the meter's attributes and the vending key disagree
key_type_refused      this KT is not offered here, or may not do this
algorithm_refused     this EA, DKGA, or pair of both is not offered
tables_invalid        a substitution table set that is malformed, unknown or not the licensed one
key_file_invalid      a key file that does not open
wrapping_key_exists   a hardware token that has its wrapping key already
amount_over_limit     more in one token than this security module gives out
limit_reached         more vends, or more wrong digits, than it takes in an interval
security_module_away  the security module cannot be reached; trying again later is right
state_invalid         a stored meter state that does not load
"""

from schemas.errors import DomainError


class TokenError(DomainError):
    """A number, key or token that IEC 62055-41 refuses."""


class UnsupportedSubclass(TokenError):  # noqa: N818 - a state of the standard, as below
    """No layout is known; `assignment` says whose the subclass is."""

    def __init__(self, cls: int, subclass: int, assignment: str) -> None:
        super().__init__(
            "unsupported_subclass",
            f"Subclass {subclass} of class {cls} is {assignment}, so nothing here makes or reads "
            "it; take one that the standard defines.",
        )
        self.cls = cls
        self.subclass = subclass
        self.assignment = assignment


class SecurityModuleAway(TokenError):  # noqa: N818 - a state of the world, as in the store
    """The security module cannot be reached or cannot work now."""

    def __init__(self, message: str) -> None:
        super().__init__("security_module_away", message)


class LimitReached(TokenError):  # noqa: N818 - as above
    """The security module gives out no more in this interval, which is over in `retry_after_s`;
    trying again then is right.
    """

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__("limit_reached", message)
        self.retry_after_s = retry_after_s
