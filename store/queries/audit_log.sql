-- name: record_act
-- What somebody did, with the centre of the account or meter that it was done to.
INSERT INTO audit_log (at, who, operator_id, action, subject, centre_id, reason, before, after)
VALUES (at_ms(%(now_ms)s), %(who)s, (SELECT id FROM operator WHERE name = %(who)s), %(action)s,
        %(subject)s,
        coalesce((SELECT centre_id FROM account WHERE id = %(account)s),
                 (SELECT centre_id FROM meter WHERE number = %(meter)s)),
        %(reason)s, %(before)s, %(after)s)

-- name: number_of_account
-- What people call an account.
SELECT number FROM account WHERE id = %(account)s

-- name: acts_newest
-- Acts newest first, all or some.
SELECT l.id, ms_of(l.at), l.who, o.role, l.action, l.subject, c.code, l.reason, l.before, l.after
FROM audit_log l
LEFT JOIN operator o ON o.id = l.operator_id
LEFT JOIN centre c ON c.id = l.centre_id
WHERE (%(who)s::text IS NULL OR l.who = %(who)s)
  AND (%(action)s::text IS NULL OR l.action = %(action)s)
  AND (%(subject)s::text IS NULL OR l.subject = %(subject)s)
  AND (%(centres)s::smallint[] IS NULL OR l.centre_id = ANY(%(centres)s))
  AND (%(before)s::bigint IS NULL OR l.id < %(before)s)
ORDER BY l.id DESC
LIMIT %(limit)s
