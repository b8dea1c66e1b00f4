-- The ends of jobs that a run of Inngest waits for, each until it has been told there. Written in the
-- commit that ends the job (R__inngest.sql), so that none is forgotten; nearly always empty.
CREATE TABLE inngest_endings (
    job_id uuid PRIMARY KEY REFERENCES background_jobs ON DELETE CASCADE,
    due_at timestamptz NOT NULL DEFAULT now(),    -- to be sent then, or sent again
    sends  integer NOT NULL DEFAULT 0
);
CREATE INDEX inngest_endings_due ON inngest_endings (due_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON inngest_endings TO hybridjobs_service;
