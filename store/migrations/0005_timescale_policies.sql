-- edition: timescale
-- Compression needs the Timescale licence; on the Apache edition this file waits (see ADR 0004).
ALTER TABLE reading SET (
    timescaledb.compress,
    timescaledb.compress_segmentby = 'meter_id, register',
    timescaledb.compress_orderby = 'ts'
);
SELECT add_compression_policy('reading', INTERVAL '30 days');
