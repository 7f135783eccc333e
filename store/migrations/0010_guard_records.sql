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
