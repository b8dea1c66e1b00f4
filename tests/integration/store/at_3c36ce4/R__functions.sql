-- Functions and views: replaced as a whole whenever this file changes.

-- UUIDv7 (RFC 9562): 48 bits of milliseconds, then random. Postgres 16 has none of its own.
CREATE OR REPLACE FUNCTION uuidv7_at(moment timestamptz) RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                    PLACING substring(int8send((extract(epoch FROM moment) * 1000)::bigint) FROM 3)
                    FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid
$$;

-- Enqueue inside the caller's own transaction. The same (key, type) gives the same job.
CREATE OR REPLACE FUNCTION submit_job(
    type text,
    payload jsonb DEFAULT '{}',
    key text DEFAULT NULL,
    priority integer DEFAULT 0,
    run_at timestamptz DEFAULT now(),
    parent_id uuid DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = hybridjobs, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    job uuid;
    spec jsonb;
BEGIN
    IF NOT EXISTS (
        SELECT FROM submit_grants g
        WHERE (g.type = '*' OR g.type = submit_job.type)
          AND EXISTS (SELECT FROM pg_roles r
                      WHERE r.rolname = g.role_name AND pg_has_role(session_user, r.oid, 'member'))
    ) THEN
        RAISE EXCEPTION 'role % may not submit jobs of type %', session_user, type
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'an administrator adds a row to hybridjobs.submit_grants';
    END IF;
    SELECT t.spec INTO spec FROM job_types t WHERE t.type = submit_job.type AND t.deleted_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no job type %', type
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'known types: ' || coalesce(
                      (SELECT string_agg(t.type, ', ' ORDER BY t.type) FROM job_types t
                       WHERE t.deleted_at IS NULL), 'none');
    END IF;
    LOOP
        INSERT INTO background_jobs
            (id, type, payload, source, key, priority, run_at, order_key, max_retries,
             deadline_seconds, parent_id, submitted_by)
        VALUES (uuidv7_at(clock_timestamp()), type, payload, 'sql', key, priority, run_at,
                run_at - make_interval(mins => priority),
                coalesce((spec->'retry'->>'limit')::integer, 3),
                coalesce((spec->>'deadlineSeconds')::integer, 900), parent_id, session_user)
        ON CONFLICT DO NOTHING RETURNING id INTO job;
        EXIT WHEN job IS NOT NULL;
        SELECT j.id INTO job FROM background_jobs j
        WHERE j.source = 'sql' AND j.key = submit_job.key AND j.type = submit_job.type;
        EXIT WHEN job IS NOT NULL;
    END LOOP;
    RETURN job;
END $$;

-- Runs a failed or cancelled job once more; exhausted retries get one more. False: nothing to do.
CREATE OR REPLACE FUNCTION retry_failed_job(job_id uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    UPDATE background_jobs j
    SET status = 'queued', retry_count = j.retry_count + 1,
        max_retries = greatest(j.max_retries, j.retry_count + 1),
        run_at = now(), order_key = now() - make_interval(mins => j.priority),
        dispatched_at = NULL, cancel_requested_at = NULL, outcome_reason = NULL,
        error_category = NULL, error = NULL, result = NULL,
        started_at = NULL, completed_at = NULL, failed_at = NULL
    WHERE j.id = job_id AND j.status IN ('failed', 'cancelled')
      AND NOT EXISTS (SELECT FROM job_attempts a WHERE a.job_id = j.id AND a.ended_at IS NULL);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE dead_letter_queue d
    SET resolved_at = now(), resolved_by = session_user, resolution_notes = 'retried'
    WHERE d.original_job_id = job_id AND d.resolved_at IS NULL;
    RETURN true;
END $$;

-- Per type, the last 7 days by creation.
CREATE OR REPLACE VIEW job_statistics AS
SELECT type,
       count(*) AS count,
       avg(duration_ms) AS avg_duration_ms,
       min(duration_ms) AS min_duration_ms,
       max(duration_ms) AS max_duration_ms,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS median_duration_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_duration_ms,
       count(*) FILTER (WHERE status = 'completed') AS completed_count,
       count(*) FILTER (WHERE status = 'failed') AS failed_count,
       round(100.0 * count(*) FILTER (WHERE status = 'completed')
             / nullif(count(*) FILTER (WHERE status IN ('completed', 'failed')), 0), 2)
           AS success_rate
FROM background_jobs
WHERE created_at > now() - interval '7 days'
GROUP BY type;

-- Seven figures of the last 24 hours, none of them ever null.
CREATE OR REPLACE FUNCTION get_job_statistics_summary()
RETURNS TABLE (metric text, value text)
LANGUAGE sql STABLE SET search_path = hybridjobs, pg_temp AS $$
    WITH day AS (
        SELECT count(*) AS total,
               count(*) FILTER (WHERE status = 'queued') AS queued,
               count(*) FILTER (WHERE status = 'processing') AS processing,
               count(*) FILTER (WHERE status = 'completed') AS completed,
               count(*) FILTER (WHERE status = 'failed') AS failed,
               avg(duration_ms) FILTER (WHERE status IN ('completed', 'failed')) AS duration
        FROM background_jobs WHERE created_at > now() - interval '24 hours')
    SELECT m.metric, m.value FROM day, LATERAL (VALUES
        (1, 'Total Jobs (24h)', total::text),
        (2, 'Queued', queued::text),
        (3, 'Processing', processing::text),
        (4, 'Completed', completed::text),
        (5, 'Failed', failed::text),
        (6, 'Success Rate', CASE WHEN completed + failed = 0 THEN 'N/A'
            ELSE to_char(100.0 * completed / (completed + failed), 'FM990.00') || '%' END),
        (7, 'Avg Duration', CASE WHEN duration IS NULL THEN 'N/A'
            WHEN duration < 1000 THEN round(duration) || 'ms'
            ELSE round(duration / 1000, 1) || 's' END)
    ) AS m (place, metric, value) ORDER BY m.place
$$;

-- Folds every finished minute that is not yet in job_rollups into it; returns the rows written.
-- A minute is folded once its last second lies a minute back, by when its commits are visible.
CREATE OR REPLACE FUNCTION refresh_job_rollups() RETURNS integer
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
DECLARE
    since timestamptz;
    written integer;
BEGIN
    SELECT coalesce(max(minute) + interval '1 minute',
                    (SELECT date_trunc('minute', min(ended_at)) FROM job_attempts))
    INTO since FROM job_rollups;
    INSERT INTO job_rollups
    SELECT date_trunc('minute', a.ended_at), j.type, a.outcome, count(*),
           coalesce(sum(extract(epoch FROM a.ended_at - a.started_at) * 1000), 0)::bigint,
           coalesce(max(extract(epoch FROM a.ended_at - a.started_at) * 1000), 0)::bigint
    FROM job_attempts a JOIN background_jobs j ON j.id = a.job_id
    WHERE a.ended_at >= since AND a.ended_at < date_trunc('minute', now() - interval '1 minute')
    GROUP BY 1, 2, 3
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END $$;

GRANT USAGE ON SCHEMA hybridjobs TO hybridjobs_service, hybridjobs_handlers, hybridjobs_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA hybridjobs TO hybridjobs_service;
GRANT SELECT ON background_jobs, job_attempts, job_types, job_heartbeats, dead_letter_queue,
    job_rollups, job_statistics TO hybridjobs_reader;
REVOKE ALL ON FUNCTION submit_job, retry_failed_job, get_job_statistics_summary,
    refresh_job_rollups, uuidv7_at FROM PUBLIC;
GRANT EXECUTE ON FUNCTION submit_job TO hybridjobs_service, hybridjobs_handlers;
GRANT EXECUTE ON FUNCTION retry_failed_job, refresh_job_rollups, uuidv7_at TO hybridjobs_service;
GRANT EXECUTE ON FUNCTION get_job_statistics_summary TO hybridjobs_service, hybridjobs_reader;
