-- Each reading updates its account's row in place, and the next one to its page clears what that left.
-- As many dead rows as accounts are usual, so a fifth, at which autovacuum begins by itself, had it go
-- over the table several times in each round of readings. What clearing cannot reach still counts.
ALTER TABLE account_state
    SET (autovacuum_vacuum_scale_factor = 2, autovacuum_analyze_scale_factor = 2);
