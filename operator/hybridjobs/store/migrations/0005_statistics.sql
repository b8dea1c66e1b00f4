-- What statistics read instead of the history, a row for each minute in which something happened.

-- Of the attempts counted: those that ran in the ingress, and those whose end was their job's. Made
-- anew by the next refresh: every attempt is still there, since nothing has deleted any so far.
TRUNCATE job_rollups;
ALTER TABLE job_rollups
    ADD COLUMN inline_runs    integer NOT NULL,
    ADD COLUMN jobs_failed    integer NOT NULL,
    ADD COLUMN jobs_cancelled integer NOT NULL;

-- How long the attempts ran that succeeded: a histogram, for medians and percentiles.
CREATE TABLE job_run_times (
    minute timestamptz NOT NULL,
    type   text NOT NULL,
    runner text NOT NULL,
    bucket smallint NOT NULL,                 -- see run_time_bucket
    runs   integer NOT NULL,
    PRIMARY KEY (minute, type, runner, bucket)
);

CREATE TABLE job_arrivals (
    minute timestamptz NOT NULL,
    type   text NOT NULL,
    jobs   integer NOT NULL,
    PRIMARY KEY (minute, type)
);

-- The minutes of attempts that were recorded long after their end, as when the operator was down.
-- Without a key, so that no outcome ever waits for another one here.
CREATE TABLE late_minutes (
    minute timestamptz NOT NULL
);

GRANT SELECT, INSERT, UPDATE, DELETE ON job_run_times, job_arrivals, late_minutes
    TO hybridjobs_service;
GRANT SELECT ON job_run_times, job_arrivals TO hybridjobs_reader;
