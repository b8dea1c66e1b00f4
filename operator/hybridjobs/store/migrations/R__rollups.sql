-- The roll-ups: what statistics read instead of the history. Replaced as a whole whenever this file
-- changes.

-- Each bucket is a fifth wider than the one before: 0 is up to 1.2 ms, 52 begins at 8.2 s.
CREATE OR REPLACE FUNCTION run_time_bucket(duration_ms double precision) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT floor(4 * ln(greatest(duration_ms, 1)) / ln(2.0::double precision))::smallint
$$;

-- The three tables' rows for the minutes from `since` until `until`, from the history.
-- An attempt ended its job when the job stands where that attempt left it.
CREATE OR REPLACE FUNCTION count_attempts(since timestamptz, until timestamptz)
RETURNS SETOF job_rollups
LANGUAGE sql STABLE SET search_path = hybridjobs, pg_temp AS $$
    SELECT date_trunc('minute', a.ended_at), j.type, a.outcome, count(*),
           coalesce(sum(extract(epoch FROM a.ended_at - a.started_at) * 1000), 0)::bigint,
           coalesce(max(extract(epoch FROM a.ended_at - a.started_at) * 1000), 0)::bigint,
           -- One that found no free child has not run.
           count(*) FILTER (WHERE a.runner = 'inline' AND a.reason IS DISTINCT FROM 'NoFreeChild'),
           count(*) FILTER (WHERE j.attempt = a.attempt AND j.status = 'failed'),
           count(*) FILTER (WHERE j.attempt = a.attempt AND j.status = 'cancelled')
    FROM job_attempts a JOIN background_jobs j ON j.id = a.job_id
    WHERE a.ended_at >= since AND a.ended_at < until
    GROUP BY 1, 2, 3
$$;

CREATE OR REPLACE FUNCTION count_run_times(since timestamptz, until timestamptz)
RETURNS SETOF job_run_times
LANGUAGE sql STABLE SET search_path = hybridjobs, pg_temp AS $$
    SELECT date_trunc('minute', a.ended_at), j.type, a.runner,
           run_time_bucket(
               (extract(epoch FROM a.ended_at - a.started_at) * 1000)::double precision),
           count(*)
    FROM job_attempts a JOIN background_jobs j ON j.id = a.job_id
    WHERE a.ended_at >= since AND a.ended_at < until
      AND a.outcome = 'succeeded' AND a.started_at IS NOT NULL
    GROUP BY 1, 2, 3, 4
$$;

CREATE OR REPLACE FUNCTION count_arrivals(since timestamptz, until timestamptz)
RETURNS SETOF job_arrivals
LANGUAGE sql STABLE SET search_path = hybridjobs, pg_temp AS $$
    SELECT date_trunc('minute', j.created_at), j.type, count(*)
    FROM background_jobs j WHERE j.created_at >= since AND j.created_at < until
    GROUP BY 1, 2
$$;

-- The first minute that is not yet in the roll-ups.
CREATE OR REPLACE FUNCTION first_unfolded_attempts() RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = hybridjobs, pg_temp AS $$
    SELECT coalesce((SELECT max(minute) + interval '1 minute' FROM job_rollups), '-infinity')
$$;

CREATE OR REPLACE FUNCTION first_unfolded_arrivals() RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = hybridjobs, pg_temp AS $$
    SELECT coalesce((SELECT max(minute) + interval '1 minute' FROM job_arrivals), '-infinity')
$$;

-- The tables up to now.
CREATE OR REPLACE VIEW job_rollups_now WITH (security_invoker = true) AS
SELECT * FROM job_rollups
UNION ALL SELECT * FROM count_attempts(first_unfolded_attempts(), 'infinity');

CREATE OR REPLACE VIEW job_run_times_now WITH (security_invoker = true) AS
SELECT * FROM job_run_times
UNION ALL SELECT * FROM count_run_times(first_unfolded_attempts(), 'infinity');

CREATE OR REPLACE VIEW job_arrivals_now WITH (security_invoker = true) AS
SELECT * FROM job_arrivals
UNION ALL SELECT * FROM count_arrivals(first_unfolded_arrivals(), 'infinity');

-- An end that is recorded when its minute may be in the roll-ups already: that minute is counted
-- anew. Half a minute is what is left of refresh_job_rollups' minute for the commit; people take
-- their time for theirs.
CREATE OR REPLACE FUNCTION note_late_minute() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    INSERT INTO late_minutes VALUES (date_trunc('minute', NEW.ended_at));
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER note_late_minute AFTER UPDATE ON job_attempts FOR EACH ROW
WHEN (OLD.ended_at IS NULL AND (NEW.ended_at < now() - interval '30 seconds'
                                OR NEW.ended_at IS NOT NULL AND NEW.reason = 'SetByHand'))
EXECUTE FUNCTION note_late_minute();

-- Folds every finished minute into the roll-ups; returns the rows of job_rollups written. A minute
-- of attempts is folded once its last second lies a minute back, by when its commits are visible,
-- and one of arrivals after ten, since applications submit jobs within long transactions.
CREATE OR REPLACE FUNCTION refresh_job_rollups() RETURNS integer
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
DECLARE
    since timestamptz := first_unfolded_attempts();
    until timestamptz := date_trunc('minute', now() - interval '1 minute');
    late timestamptz[];
    folded integer;
    corrected integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock(x'726f6c6c7570'::bigint) THEN  -- "rollup"
        RETURN 0;
    END IF;
    INSERT INTO job_rollups SELECT * FROM count_attempts(since, until) ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS folded = ROW_COUNT;
    INSERT INTO job_run_times SELECT * FROM count_run_times(since, until) ON CONFLICT DO NOTHING;
    INSERT INTO job_arrivals
    SELECT * FROM count_arrivals(first_unfolded_arrivals(),
                                 date_trunc('minute', now() - interval '10 minutes'))
    ON CONFLICT DO NOTHING;

    WITH seen AS (DELETE FROM late_minutes m WHERE m.minute < until RETURNING m.minute)
    SELECT array_agg(DISTINCT seen.minute) INTO late FROM seen
    WHERE seen.minute > now() - interval '6 days';  -- of older ones retention may have taken some
    INSERT INTO job_rollups AS r
    SELECT c.* FROM unnest(late) AS m (minute),
                    count_attempts(m.minute, m.minute + interval '1 minute') AS c
    ON CONFLICT (minute, type, outcome) DO UPDATE
    SET attempts = excluded.attempts, duration_ms_sum = excluded.duration_ms_sum,
        duration_ms_max = excluded.duration_ms_max, inline_runs = excluded.inline_runs,
        -- A job that somebody has retried since is no longer found as ended here.
        jobs_failed = greatest(r.jobs_failed, excluded.jobs_failed),
        jobs_cancelled = greatest(r.jobs_cancelled, excluded.jobs_cancelled);
    GET DIAGNOSTICS corrected = ROW_COUNT;
    INSERT INTO job_run_times
    SELECT c.* FROM unnest(late) AS m (minute),
                    count_run_times(m.minute, m.minute + interval '1 minute') AS c
    ON CONFLICT (minute, type, runner, bucket) DO UPDATE SET runs = excluded.runs;
    RETURN folded + corrected;
END $$;

-- Median and 95th percentile of successful runs, within a fifth of the true ones: the runs in a
-- bucket are taken to be spread evenly. `only_runner` null: of all runners.
CREATE OR REPLACE FUNCTION run_time_percentiles(since timestamptz, only_runner text DEFAULT NULL)
RETURNS TABLE (type text, runs bigint, median_ms double precision, p95_ms double precision)
LANGUAGE sql STABLE SET search_path = hybridjobs, pg_temp AS $$
    WITH counted AS (
        SELECT t.type, t.bucket, sum(t.runs) AS runs
        FROM job_run_times_now t
        WHERE t.minute >= since AND (only_runner IS NULL OR t.runner = only_runner)
        GROUP BY t.type, t.bucket
    ), ranked AS (
        SELECT c.type, power(2, c.bucket / 4.0) AS from_ms, power(2, (c.bucket + 1) / 4.0) AS to_ms,
               c.runs, sum(c.runs) OVER (PARTITION BY c.type ORDER BY c.bucket) AS upto,
               sum(c.runs) OVER (PARTITION BY c.type) AS total
        FROM counted c
    )
    SELECT r.type, max(r.total)::bigint,
           min(r.to_ms - (r.to_ms - r.from_ms) * (r.upto - 0.5 * r.total) / r.runs)
               FILTER (WHERE r.upto >= 0.5 * r.total AND r.upto - r.runs < 0.5 * r.total),
           min(r.to_ms - (r.to_ms - r.from_ms) * (r.upto - 0.95 * r.total) / r.runs)
               FILTER (WHERE r.upto >= 0.95 * r.total AND r.upto - r.runs < 0.95 * r.total)
    FROM ranked r GROUP BY r.type
$$;

GRANT SELECT ON job_rollups_now, job_run_times_now, job_arrivals_now
    TO hybridjobs_service, hybridjobs_reader;
REVOKE ALL ON FUNCTION run_time_bucket, count_attempts, count_run_times, count_arrivals,
    first_unfolded_attempts, first_unfolded_arrivals, note_late_minute, refresh_job_rollups,
    run_time_percentiles FROM PUBLIC;
GRANT EXECUTE ON FUNCTION run_time_bucket, count_attempts, count_run_times, count_arrivals,
    first_unfolded_attempts, first_unfolded_arrivals, run_time_percentiles
    TO hybridjobs_service, hybridjobs_reader;
GRANT EXECUTE ON FUNCTION refresh_job_rollups TO hybridjobs_service;
