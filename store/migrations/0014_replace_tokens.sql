-- Credit that its meter can no longer read is given once more: under the key that the meter holds
-- after a key change, or to the meter that took its place.

ALTER TABLE token
    -- with sgc, krn and base_date, what a decoder key is made from; null before this version
    ADD COLUMN kt smallint,
    ADD COLUMN ti text,
    -- A replacement on the same meter has the TID of the token that it replaces: a meter that took
    -- the one refuses the other (UsedError), whichever of the two anybody typed in, and when.
    ADD COLUMN shares_tid boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT token_tid_is_used_once;
CREATE UNIQUE INDEX token_tid_is_used_once ON token (meter_id, base_date, tid) WHERE NOT shares_tid;

-- A token has one replacement at most, which may be replaced in its turn.
CREATE TABLE token_replacement (
    replaced_token_id bigint PRIMARY KEY REFERENCES token,
    token_id bigint NOT NULL UNIQUE REFERENCES token,
    -- what keeps the two from being credited both: the meter's memory, or somebody's word that the
    -- first was never entered, where no meter remembers (another base date, another meter)
    ground text NOT NULL CHECK (ground IN ('same_tid', 'not_entered')),
    replaced_by text NOT NULL CHECK (btrim(replaced_by) <> ''),
    reason text NOT NULL CHECK (btrim(reason) <> ''),
    replaced_at timestamptz NOT NULL
);
CREATE TRIGGER token_replacement_is_immutable BEFORE UPDATE OR DELETE ON token_replacement
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER token_replacement_is_not_truncated BEFORE TRUNCATE ON token_replacement
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Meters that read nothing of what they are sold are looked for every minute.
CREATE INDEX token_not_authenticated ON token (answered_at) WHERE result = 'AuthenticationError';
