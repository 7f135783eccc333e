-- Each look of a customer at his top-ups asks for those of his payments that wait or went back.
CREATE INDEX suspect_payment_of_account ON suspect_payment (account_id);
