-- name: role_exists
-- Whether the server knows a role.
SELECT 1 FROM pg_roles WHERE rolname = %(role)s

-- name: role_covers
-- A login that has the application's grants already: by membership, or because it owns all.
SELECT 1 FROM pg_roles WHERE rolname = %(login)s AND pg_has_role(oid, 'prepaid_app', 'MEMBER')

-- name: tables_to_grant
-- Our tables, and whether a trigger refuses every change of their rows.
SELECT c.relname,
       EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
               WHERE t.tgrelid = c.oid AND p.proname = 'refuse_change'
                 -- 16: on update
                 AND t.tgtype & 16 <> 0)
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
ORDER BY c.relname

-- name: connected_as
-- Who this connection acts as, and whether nothing would keep it from rewriting the ledger.
SELECT current_user::text,
       r.rolsuper OR coalesce(bool_or(pg_has_role(current_user, c.relowner, 'USAGE')), false)
FROM pg_roles r
LEFT JOIN pg_class c ON c.relname = 'ledger_transaction'
    AND c.relnamespace = 'public'::regnamespace
WHERE r.rolname = current_user
GROUP BY r.rolsuper
