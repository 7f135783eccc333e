-- Words of a failing supply and of its return come in any order, and twice: the newest by the meter's
-- own time counts, which this is. `power_failed_at` stays our clock as we heard of it.
ALTER TABLE meter_state ADD COLUMN power_said_at timestamptz;
