"""Foreign devices: a profile maps what they say onto readings of the MQTT contract (clause 4)."""
