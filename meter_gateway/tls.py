"""TLS towards the broker: whom we believe, what we show, and under which name it must answer."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import DomainError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Who is believed to be the broker, and what we show it; PEM files.

    Without `ca` the host's authorities count. `server_name` is the name that the broker's
    certificate must carry where that is not the host we connect to.
    """

    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer; the broker's certificate and name are always checked.

        Raises DomainError `tls_files`.
        """
        context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.server_name = self.server_name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self.ca is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.private_key)
        except (OSError, ssl.SSLError) as error:
            files = (self.ca, self.certificate, self.private_key)
            named = ", ".join(str(path) for path in files if path)
            reason = error.strerror or "not of this form"
            raise DomainError("tls_files", f"Mend the TLS files {named}: {reason}.") from None
        return context


class _NamedContext(ssl.SSLContext):
    """Checks the certificate for `server_name` instead of the host; our MQTT clients know one name
    for both.
    """

    server_name: str | None = None

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **self._named(kwargs))

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return super().wrap_bio(*args, **self._named(kwargs))

    def _named(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if self.server_name is None:
            return kwargs
        return kwargs | {"server_hostname": self.server_name}
