-- What the queue has done, and how it stands. Replaced as a whole whenever this file changes.

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

GRANT SELECT ON job_statistics TO hybridjobs_service, hybridjobs_reader;
REVOKE ALL ON FUNCTION get_job_statistics_summary, refresh_job_rollups FROM PUBLIC;
GRANT EXECUTE ON FUNCTION get_job_statistics_summary TO hybridjobs_service, hybridjobs_reader;
GRANT EXECUTE ON FUNCTION refresh_job_rollups TO hybridjobs_service;
