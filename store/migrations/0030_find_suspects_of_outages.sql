-- Whose power failed by its own word, and whose connection is gone: found without a look at all.
CREATE INDEX meter_state_power_failed ON meter_state (power_failed_at)
    WHERE power_failed_at IS NOT NULL;
CREATE INDEX meter_state_offline ON meter_state (meter_id) WHERE online IS FALSE;
