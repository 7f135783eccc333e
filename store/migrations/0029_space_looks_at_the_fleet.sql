-- A duty that looks at the whole fleet takes longer the larger that is; the next one waits accordingly.
ALTER TABLE duty ADD COLUMN took interval NOT NULL DEFAULT '0';
