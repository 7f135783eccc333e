-- What is never edited is not emptied either.
CREATE TRIGGER tariff_version_is_not_truncated BEFORE TRUNCATE ON tariff_version
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER installation_is_not_truncated BEFORE TRUNCATE ON installation
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
