-- A partner's clock may be wrong; its payer's money is here all the same.
ALTER TABLE suspect_payment DROP CONSTRAINT suspect_payment_suspicion_check,
    ADD CONSTRAINT suspect_payment_suspicion_check CHECK (suspicion IN
        ('unknown_meter', 'unusual_amount', 'paid_twice', 'amount_differs', 'future'));
