-- What is claimed and has not begun is few rows of millions: for the search for those whose attempt is
-- gone.
CREATE INDEX background_jobs_starting ON background_jobs (id)
    WHERE status = 'queued' AND stage IS NULL;
-- Neither Python nor a line has a place for a time without end.
ALTER TABLE background_jobs
    ADD CONSTRAINT finite_times CHECK (isfinite(run_at) AND isfinite(order_key)) NOT VALID;
