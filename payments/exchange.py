"""One request to a channel, and what is known when no answer comes.

What matters is whether it may have been done: a request that never left was not, one whose answer
is lost may have been. Neither says anything about the channel's own view.
"""

import json
from typing import Any

import httpx

CONNECT_TIMEOUT_S = 5
# No answer of these protocols comes near it; more is not read.
MAX_ANSWER_BYTES = 64 * 1024


class NotSent(Exception):  # noqa: N818 - a state of the world, not a defect
    """The request never left: it was not done."""


class Lost(Exception):  # noqa: N818 - a state of the world, not a defect
    """The request left, and no answer that can be read came back: it may have been done."""


class Answer:
    """Status and body of an answer; a body that is JSON as such."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body

    def text(self) -> str:
        return self._body.decode("utf-8", errors="replace").strip()

    def form(self) -> dict[str, Any]:
        """The JSON object of the body. Errors: Lost, it is none."""
        try:
            form = json.loads(self._body)
        except ValueError:
            raise Lost from None
        if not isinstance(form, dict):
            raise Lost
        return form


def make_client(url: str, timeout_s: int) -> httpx.Client:
    """A client of one channel. What stands in the environment (proxies, .netrc) is not asked."""
    return httpx.Client(
        base_url=url,
        timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
        follow_redirects=False,
        trust_env=False,
    )


def send(
    client: httpx.Client,
    method: str,
    path: str,
    *,
    params: dict[str, str] | None = None,
    json_form: dict[str, Any] | None = None,
    fields: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Errors: NotSent; Lost, also for an answer of 500 and above, which says nothing of the deed.

    The exceptions carry nothing of the request: it may hold a passcode.
    """
    try:
        with client.stream(
            method, path, params=params, json=json_form, data=fields, headers=headers
        ) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise Lost
            status = response.status_code
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
        raise NotSent from None
    except httpx.HTTPError:
        raise Lost from None
    if status >= 500:
        raise Lost
    return Answer(status, bytes(body))
