-- What jobs tell others when they end: a row for each address and end, written in the transaction
-- that ends the job (R__triggers.sql). background_jobs.callback is an array of the addresses, as
-- [{"url", "on": ["completed", ...], "secret"}], fixed when the job is submitted.
CREATE TABLE callback_deliveries (
    id           uuid PRIMARY KEY,            -- UUIDv7: the message's webhook-id
    job_id       uuid NOT NULL,               -- no foreign key: retention may take the job first
    type         text NOT NULL,               -- the job's
    event        text NOT NULL CHECK (event IN ('job.completed', 'job.failed', 'job.cancelled')),
    url          text NOT NULL,
    host         text NOT NULL GENERATED ALWAYS AS (
        lower(left(coalesce(substring(url FROM '^[A-Za-z]+://([^/?#]*)'), ''), 255))) STORED,
    secret       text NOT NULL,               -- the name of what signs it
    body         text NOT NULL,               -- JSON, the same in every try
    status       text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'delivered', 'failed', 'disabled')),
    attempts     integer NOT NULL DEFAULT 0,  -- tries begun; fences late records
    failures     integer NOT NULL DEFAULT 0,  -- since it was written, or asked for again
    next_at      timestamptz NOT NULL DEFAULT now(),
    lease_until  timestamptz,                 -- somebody is at it
    give_up_at   timestamptz NOT NULL DEFAULT now() + interval '3 days',
    last_code    integer,                     -- HTTP status of the last answer
    last_error   text,
    response     text,                        -- the beginning of the last answer's body
    tries        jsonb NOT NULL DEFAULT '[]', -- the last ones: [{attempt, at, durationMs, code, error}]
    created_at   timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz
);
-- A slow receiver's line is never read on the way to another's.
CREATE INDEX callback_deliveries_due ON callback_deliveries (host, next_at) WHERE status = 'pending';
CREATE INDEX callback_deliveries_job ON callback_deliveries (job_id, id);

GRANT SELECT, INSERT, UPDATE, DELETE ON callback_deliveries TO hybridjobs_service;
GRANT SELECT ON callback_deliveries TO hybridjobs_reader;
