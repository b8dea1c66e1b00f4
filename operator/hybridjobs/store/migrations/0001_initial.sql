-- The queue. Names of background_jobs are those of the system this one replaces; its defects are
-- not: nothing that must be there may be null, and failing straight from queued is legal.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['hybridjobs_service', 'hybridjobs_handlers', 'hybridjobs_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
    END LOOP;
END $$;

CREATE TABLE job_types (
    type        text PRIMARY KEY,
    name        text NOT NULL,                -- the HybridJobType object's
    uid         text NOT NULL,
    generation  bigint NOT NULL,
    spec        jsonb NOT NULL,
    events      text[] NOT NULL DEFAULT '{}',
    paused_at   timestamptz,
    paused_by   text,
    deleted_at  timestamptz,                  -- the object is gone; rows of the type may not be
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE background_jobs (
    id                  uuid PRIMARY KEY,     -- UUIDv7, made by us
    type                text NOT NULL,
    payload             jsonb NOT NULL DEFAULT '{}',
    status              text NOT NULL DEFAULT 'queued'
        CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
    result              jsonb,
    error               text,
    retry_count         integer NOT NULL DEFAULT 0,
    max_retries         integer NOT NULL DEFAULT 3,
    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,          -- of the current or last attempt
    completed_at        timestamptz,
    failed_at           timestamptz,
    duration_ms         integer GENERATED ALWAYS AS (
        CASE WHEN started_at IS NOT NULL AND coalesce(completed_at, failed_at) IS NOT NULL
             THEN least(extract(epoch FROM coalesce(completed_at, failed_at) - started_at) * 1000,
                        2147483647)::integer
        END) STORED,
    inngest_event_id    text,
    inngest_run_id      text,
    repository_id       uuid,                 -- no foreign key: the queue outlives what it serves

    source              text NOT NULL DEFAULT 'sql',
    key                 text,                 -- idempotency key within (source, type)
    priority            smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN -100 AND 100),
    run_at              timestamptz NOT NULL DEFAULT now(),
    order_key           timestamptz NOT NULL DEFAULT now(),  -- run_at minus a minute a priority
    attempt             integer NOT NULL DEFAULT 0,          -- the last one begun; 0: none
    dispatched_at       timestamptz,          -- claimed for the attempt now open
    deadline_seconds    integer CHECK (deadline_seconds BETWEEN 1 AND 86400),
    concurrency_key     text,
    schedule            text,
    parent_id           uuid,
    batch_id            uuid,
    callback            jsonb,
    progress            jsonb,                -- the last attempt's last, kept when it ends
    outcome_reason      text,
    error_category      text,
    cancel_requested_at timestamptz,
    namespace           text,                 -- of the HybridJob
    resource_name       text,
    resource_uid        text,                 -- of the HybridJob that stands for this row now
    submitted_by        text,
    traceparent         text,

    CONSTRAINT completed_has_run CHECK (completed_at IS NULL OR started_at IS NOT NULL)
) WITH (fillfactor = 85);

CREATE UNIQUE INDEX background_jobs_key ON background_jobs (source, key, type) WHERE key IS NOT NULL;
CREATE INDEX background_jobs_ready ON background_jobs (order_key, id)
    WHERE status = 'queued' AND dispatched_at IS NULL;
CREATE INDEX background_jobs_created ON background_jobs (created_at);
CREATE INDEX background_jobs_parent ON background_jobs (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX background_jobs_batch ON background_jobs (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX background_jobs_repository ON background_jobs (repository_id)
    WHERE repository_id IS NOT NULL;

-- One execution. Open while ended_at is null; the open row is the guard of every later write.
CREATE TABLE job_attempts (
    job_id           uuid NOT NULL REFERENCES background_jobs ON DELETE CASCADE,
    attempt          integer NOT NULL CHECK (attempt > 0),
    runner           text NOT NULL CHECK (runner IN ('pod', 'inline')),
    type_generation  bigint,
    deadline_seconds integer NOT NULL,
    claimed_at       timestamptz NOT NULL DEFAULT now(),
    dispatched_at    timestamptz,             -- its HybridJob exists
    lease_until      timestamptz,             -- inline attempts: dead after this
    hybridjob_uid    text,
    job_uid          text,                    -- of the Kubernetes Job
    pod_name         text,
    pod_uid          text,
    started_at       timestamptz,             -- of the container
    ended_at         timestamptz,
    outcome          text,
    reason           text,
    error_category   text,
    exit_code        integer,
    message          text,
    reported         jsonb,                   -- the worker's own account of a failure
    spent_retry      boolean,
    log_tail         text,
    progress         jsonb,
    PRIMARY KEY (job_id, attempt),
    CONSTRAINT ended_has_outcome CHECK ((ended_at IS NULL) = (outcome IS NULL))
) WITH (fillfactor = 85);

CREATE INDEX job_attempts_open ON job_attempts (job_id, attempt) WHERE ended_at IS NULL;
CREATE INDEX job_attempts_ended ON job_attempts (ended_at) WHERE ended_at IS NOT NULL;

-- Written every few seconds by each running attempt: narrow, and no index on the time, so that
-- every update stays within its page.
CREATE TABLE job_heartbeats (
    job_id     uuid PRIMARY KEY REFERENCES background_jobs ON DELETE CASCADE,
    attempt    integer NOT NULL,
    beat_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    progress   jsonb
) WITH (fillfactor = 50);

-- What a handler saved for its successor; survives its attempt.
CREATE TABLE job_checkpoints (
    job_id     uuid PRIMARY KEY REFERENCES background_jobs ON DELETE CASCADE,
    attempt    integer NOT NULL,
    data       jsonb NOT NULL,
    saved_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The inbox of jobs that failed for good: to redrive or to resolve.
CREATE TABLE dead_letter_queue (
    id               uuid PRIMARY KEY,
    original_job_id  uuid NOT NULL,
    type             text NOT NULL,
    payload          jsonb NOT NULL,
    error_history    jsonb NOT NULL,          -- [{attempt, outcome, reason, message, endedAt}]
    failure_count    integer NOT NULL,
    error_category   text NOT NULL,
    first_failed_at  timestamptz NOT NULL,
    last_failed_at   timestamptz NOT NULL,
    moved_to_dlq_at  timestamptz NOT NULL DEFAULT now(),
    resolution_notes text,
    resolved_at      timestamptz,
    resolved_by      text
);
CREATE UNIQUE INDEX dead_letter_queue_unresolved ON dead_letter_queue (original_job_id)
    WHERE resolved_at IS NULL;

-- One row a minute, type and outcome: what charts read instead of the history.
CREATE TABLE job_rollups (
    minute            timestamptz NOT NULL,
    type              text NOT NULL,
    outcome           text NOT NULL,
    attempts          integer NOT NULL,
    duration_ms_sum   bigint NOT NULL,
    duration_ms_max   bigint NOT NULL,
    PRIMARY KEY (minute, type, outcome)
);

-- Which types a database role may submit by submit_job; a role without a row may submit none.
CREATE TABLE submit_grants (
    role_name text NOT NULL,
    type      text NOT NULL,                  -- '*': every type
    PRIMARY KEY (role_name, type)
);
INSERT INTO submit_grants VALUES ('hybridjobs_service', '*'), ('hybridjobs_handlers', '*');
