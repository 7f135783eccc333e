-- The position stood in the account's hot row: a row is moved out of line only above two kilobytes,
-- whatever its target. So every steady reading wrote it again. Here it is written when it changes.
-- Who writes it writes the row of `account_state`, too: what was read of both is guarded by that.
CREATE TABLE account_position (
    account_id bigint PRIMARY KEY REFERENCES account (id),
    position json NOT NULL                -- credit_engine.position
);
INSERT INTO account_position (account_id, position) SELECT account_id, position FROM account_state;
ALTER TABLE account_state DROP COLUMN position;
-- Room for the next versions of a page's rows, which then need no new entries in the indexes.
ALTER TABLE account_state RESET (toast_tuple_target);
ALTER TABLE account_state SET (fillfactor = 70);
