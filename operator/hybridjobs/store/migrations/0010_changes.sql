-- Which transaction last changed what a job's readers see of it: what follows changes asks for those
-- whose transaction its last snapshot did not show. That order never misses one, however long a
-- transaction takes to commit, where a time or a sequence would. Equal values of one commit share an
-- entry of the index, and a row that leaves one of its lines gets new entries in every index anyway.
ALTER TABLE background_jobs
    ADD COLUMN changed_in xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ADD COLUMN request_digest bytea;          -- of the request with this Idempotency-Key
CREATE INDEX background_jobs_changed ON background_jobs (changed_in);
ALTER TABLE job_batches ADD COLUMN request_digest bytea;
