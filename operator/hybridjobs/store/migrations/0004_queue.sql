-- Where queued jobs wait, and for what. Only rows at stage 'ready' are ever looked through by a
-- claim, each type in a line of its own, so that whatever waits for something else costs it nothing:
--   ready      in line
--   scheduled  run_at lies ahead
--   parked     its concurrency key is full or throttled
--   blocked    waits for other jobs
-- null: not queued, or claimed.
ALTER TABLE background_jobs
    ADD COLUMN stage text DEFAULT 'ready' CHECK (stage IN ('ready', 'scheduled', 'parked', 'blocked')),
    ADD COLUMN unique_key text,
    ADD COLUMN unique_while text CHECK (unique_while IN ('queued', 'open')),
    ADD COLUMN has_dependents boolean NOT NULL DEFAULT false,
    ADD COLUMN on_dependency_failure text CHECK (on_dependency_failure IN ('cancel', 'run')),
    ADD CONSTRAINT unique_key_has_extent CHECK ((unique_key IS NULL) = (unique_while IS NULL));
UPDATE background_jobs
SET stage = CASE WHEN status = 'queued' AND dispatched_at IS NULL
                 THEN CASE WHEN run_at > now() THEN 'scheduled' ELSE 'ready' END END;

-- From this commit on, since a program that does not know of stages may be at work while this lands:
-- what it claims must leave its line. R__triggers.sql, where the others are, replaces it.
CREATE FUNCTION settle_stage() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    NEW.stage := CASE WHEN NEW.status <> 'queued' OR NEW.dispatched_at IS NOT NULL THEN NULL
                      WHEN NEW.run_at > now() THEN 'scheduled'
                      ELSE 'ready' END;
    RETURN NEW;
END $$;
CREATE TRIGGER settle_stage BEFORE INSERT OR UPDATE ON background_jobs FOR EACH ROW
WHEN ((NEW.stage IS NOT NULL) IS DISTINCT FROM (NEW.status = 'queued' AND NEW.dispatched_at IS NULL)
      OR (NEW.stage = 'ready' AND NEW.run_at > now()))
EXECUTE FUNCTION settle_stage();

DROP INDEX background_jobs_ready;
CREATE INDEX background_jobs_ready ON background_jobs (type, order_key, id) WHERE stage = 'ready';
CREATE INDEX background_jobs_parked ON background_jobs (type, concurrency_key, order_key, id)
    WHERE stage = 'parked';
CREATE INDEX background_jobs_scheduled ON background_jobs (run_at) WHERE stage = 'scheduled';
CREATE UNIQUE INDEX background_jobs_unique ON background_jobs (type, unique_key)
    WHERE unique_key IS NOT NULL AND status IN ('queued', 'processing');
CREATE INDEX background_jobs_schedule ON background_jobs (schedule)
    WHERE schedule IS NOT NULL AND status IN ('queued', 'processing');
CREATE INDEX background_jobs_failed ON background_jobs (failed_at) WHERE status = 'failed';
CREATE INDEX background_jobs_awaited ON background_jobs (id)
    WHERE has_dependents AND status IN ('completed', 'failed', 'cancelled');
CREATE INDEX background_jobs_event ON background_jobs (inngest_event_id)
    WHERE inngest_event_id IS NOT NULL;

-- The concurrency keys that have parked rows. Inserts read it FOR KEY SHARE, and park their row at
-- once where the key is known; the claim alone writes, and removes a key only when nobody reads it.
CREATE TABLE parked_keys (
    type            text NOT NULL,
    concurrency_key text NOT NULL,
    look_at         timestamptz NOT NULL,     -- when the claim should look at it again
    PRIMARY KEY (type, concurrency_key)
);
CREATE INDEX parked_keys_due ON parked_keys (type, look_at);

-- The starts within the current period of each throttled type, or key of it; '' is the whole type.
CREATE TABLE throttle_starts (
    type            text NOT NULL,
    concurrency_key text NOT NULL,
    started_at      timestamptz NOT NULL,
    job_id          uuid NOT NULL,
    PRIMARY KEY (type, concurrency_key, started_at, job_id)
);

-- Who waits for whom. A row goes when what it waits for has ended.
CREATE TABLE job_dependencies (
    job_id     uuid NOT NULL REFERENCES background_jobs ON DELETE CASCADE,
    depends_on uuid NOT NULL,
    -- Whether the job waited for knows that somebody waits. The claim tells it, in a short
    -- transaction of its own, so that an application's long one never locks a running job.
    linked     boolean NOT NULL DEFAULT false,
    PRIMARY KEY (job_id, depends_on),
    CONSTRAINT not_on_itself CHECK (job_id <> depends_on)
);
CREATE INDEX job_dependencies_on ON job_dependencies (depends_on);
CREATE INDEX job_dependencies_new ON job_dependencies (job_id) WHERE NOT linked;

-- Jobs that were submitted together. Their counts are read by background_jobs.batch_id.
CREATE TABLE job_batches (
    id           uuid PRIMARY KEY,
    key          text,
    source       text NOT NULL,
    total        integer NOT NULL,
    submitted_by text,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX job_batches_key ON job_batches (source, key) WHERE key IS NOT NULL;

-- One row: the switch that stops every claim.
CREATE TABLE queue_settings (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    paused_at timestamptz,
    paused_by text
);
INSERT INTO queue_settings DEFAULT VALUES;

-- Decided ticks of schedules: the primary key is what makes a tick one job.
CREATE TABLE schedule_ticks (
    schedule_uid text NOT NULL,               -- of the HybridJobSchedule
    tick_at      timestamptz NOT NULL,
    schedule     text NOT NULL,               -- its name
    decision     text NOT NULL CHECK (decision IN ('submitted', 'skipped', 'replaced', 'missed')),
    job_id       uuid,
    decided_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (schedule_uid, tick_at)
);

CREATE INDEX dead_letter_queue_moved ON dead_letter_queue (moved_to_dlq_at, id)
    WHERE resolved_at IS NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA hybridjobs TO hybridjobs_service;
