"""aiomqtt, and what it keeps to itself: whether the broker took a publication.

An MQTT 5 broker refuses a publication in its PUBACK, say for want of a right. aiomqtt 2.5 reads
every PUBACK as success, so that a command that nobody got would count as sent.

Besides, it asks the loop to watch a socket by its number, a turn later: where the connection broke
meanwhile, the number is nobody's, or that of another connection, whose writing would stop.
"""

from typing import Any

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode


class CheckedClient(aiomqtt.Client):
    """An aiomqtt client that can be asked what was refused since it was last asked."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._refused: list[str] = []

    def raise_refused(self) -> None:
        """Raises MqttError if the broker refused a publication that was waited for."""
        refused, self._refused = self._refused, []
        if refused:
            raise aiomqtt.MqttError(f"the broker refuses what we publish: {refused[0]}")

    # The only place where aiomqtt sees the reason; a test fails if a release moves it.
    def _on_publish(
        self,
        client: PahoClient,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        if reason_code.is_failure:
            self._refused.append(str(reason_code))
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def _on_socket_register_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        def write() -> None:
            try:
                client.loop_write()
            except Exception as error:  # as in aiomqtt: whatever it is, it ends the connection
                if not self._disconnected.done():
                    self._disconnected.set_exception(error)

        def register() -> None:
            if sock.fileno() >= 0:
                self._loop.add_writer(sock.fileno(), write)

        # paho may call from the thread that connects.
        self._loop.call_soon_threadsafe(register)
