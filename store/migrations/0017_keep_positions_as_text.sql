-- A position is read and written whole, by every reading of its account: kept to the letter, it is
-- neither taken apart nor put together by the database, and a worker knows its own text again.
ALTER TABLE account_state ALTER COLUMN position TYPE json USING position::json;
ALTER TABLE checkpoint ALTER COLUMN position TYPE json USING position::json;
