-- A replayed reading is billed and never by itself the cause of an alert (mqtt.md section 2). Where it
-- took a balance to zero, or emergency credit into use, that is not decided yet: what is settled next
-- does. Low credit and the supply have a column of their own for what was decided.
ALTER TABLE account_state
    ADD COLUMN zero_waits boolean NOT NULL DEFAULT false,
    ADD COLUMN emergency_waits boolean NOT NULL DEFAULT false;
