-- A last will says no instant. One that the broker held back may be older than the connection that is
-- there now: so when a device last said just now that it is there is kept.
ALTER TABLE meter_state ADD COLUMN online_at timestamptz;
ALTER TABLE gateway ADD COLUMN online_at timestamptz;
