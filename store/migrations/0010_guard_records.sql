-- What is recorded stays, by trigger and by permission (store/roles.py, ADR 0009); cash in coins.

CREATE TRIGGER reversal_is_append_only BEFORE UPDATE OR DELETE ON reversal
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER emergency_request_is_append_only BEFORE UPDATE OR DELETE ON emergency_request
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_is_append_only BEFORE UPDATE OR DELETE ON event
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_account_is_append_only BEFORE UPDATE OR DELETE ON ledger_account
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER reversal_is_not_truncated BEFORE TRUNCATE ON reversal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER emergency_request_is_not_truncated BEFORE TRUNCATE ON emergency_request
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_is_not_truncated BEFORE TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_account_is_not_truncated BEFORE TRUNCATE ON ledger_account
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER decision_is_not_truncated BEFORE TRUNCATE ON decision
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER tariff_assignment_is_not_truncated BEFORE TRUNCATE ON tariff_assignment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER adjustment_is_not_truncated BEFORE TRUNCATE ON adjustment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER top_up_is_not_truncated BEFORE TRUNCATE ON top_up
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Only an owner may drop chunks. Retention is the one way by which readings leave, whole chunks at
-- a time, and the application may ask for it; what was charged for them stays in the ledger.
CREATE FUNCTION drop_readings_before(before_ms bigint) RETURNS SETOF text
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
    AS $$ SELECT drop_chunks('public.reading', older_than => public.at_ms(before_ms)) $$;
REVOKE EXECUTE ON FUNCTION drop_readings_before(bigint) FROM PUBLIC;

-- Cash: the till counts coins, the account is credited to the micro-unit; `cash_rounding` is the
-- ledger account between them. Null: no cash, or a currency in which every amount can be counted.
INSERT INTO ledger_account (code) VALUES ('cash_rounding') ON CONFLICT DO NOTHING;
ALTER TABLE top_up
    ADD COLUMN cash_step_micro bigint CHECK (cash_step_micro > 0),
    ADD COLUMN cash_rounding_micro bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT top_up_cash_is_counted_in_coins CHECK (
        CASE WHEN cash_step_micro IS NULL THEN cash_rounding_micro = 0
             ELSE 2 * abs(cash_rounding_micro) <= cash_step_micro
                  AND (amount_micro + cash_rounding_micro) % cash_step_micro = 0 END);

-- What the balance lacks after a reversal, moved to the debt: an adjustment against it.
ALTER TABLE adjustment
    ADD COLUMN to_debt boolean NOT NULL DEFAULT false,
    ADD CHECK (NOT to_debt OR amount_micro > 0);

-- Warn also when the balance lasts so many days. `expected_micro` is what they are expected to cost,
-- worked out once a local day: it stands until `expected_until_ms`.
ALTER TABLE account_state
    ADD COLUMN low_credit_days smallint CHECK (low_credit_days BETWEEN 1 AND 60),
    ADD COLUMN expected_micro bigint NOT NULL DEFAULT 0 CHECK (expected_micro >= 0),
    ADD COLUMN expected_until_ms bigint NOT NULL DEFAULT 0;
-- What a new account of a centre begins with; null: as the columns of account_state say.
ALTER TABLE centre
    ADD COLUMN low_credit_micro bigint CHECK (low_credit_micro >= 0),
    ADD COLUMN low_credit_days smallint CHECK (low_credit_days BETWEEN 1 AND 60);

-- rating.md refuses neither a top-up of nothing nor a connection without capacity: what the engine
-- can rate, the books can hold.
ALTER TABLE top_up DROP CONSTRAINT top_up_amount_micro_check, ADD CHECK (amount_micro >= 0);
ALTER TABLE installation DROP CONSTRAINT installation_max_power_w_check,
    ADD CHECK (max_power_w >= 0);
