-- Both were declared immutable over expressions that are not: the server then takes their bodies
-- into no statement, but reads and plans them at each execution that calls them, for some 40 µs.
-- The same arithmetic without a time zone of the session is immutable, and becomes a part of the plan.
CREATE OR REPLACE FUNCTION at_ms(ms bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT (timestamp '1970-01-01 00:00:00' + ms * interval '1 millisecond') AT TIME ZONE 'UTC' $$;
CREATE OR REPLACE FUNCTION ms_of(at timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$ SELECT (extract(epoch FROM at AT TIME ZONE 'UTC') * 1000)::bigint $$;
