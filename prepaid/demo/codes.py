"""One-time codes of a demonstration: its log is where people find them.

Whoever reads that log signs in as anybody. Nothing but PREPAID_CUSTOMERS__CODE_DELIVERY chooses it.
"""

from typing import Literal

import structlog

from api.code_delivery import CodeDelivery
from schemas.contacts import masked_address
from store.codes import CodeMessage

_log = structlog.stdlib.get_logger("demonstration")


class LoggedCodes:
    """Writes each code beside the masked address that it would go to."""

    def deliver(self, message: CodeMessage) -> None:
        _log.warning(
            "demonstration_code",
            text=f"{message.code} is the code for {masked_address(message.address)}",
        )


def code_delivery(chosen: Literal["none", "demonstration"]) -> CodeDelivery | None:
    """The delivery that an installation chose; the demonstration's says so at once."""
    if chosen == "none":
        return None
    _log.warning("codes_go_to_the_log", text="for a demonstration alone: anybody may sign in")
    return LoggedCodes()
