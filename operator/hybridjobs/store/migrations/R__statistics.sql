-- What the queue has done, and how it stands: docs/monitoring.md. Replaced as a whole whenever this
-- file changes. What covers more than a day, or is asked every few seconds, reads the roll-ups.

-- Per type, the jobs of the last 7 days by creation.
CREATE OR REPLACE VIEW job_statistics WITH (security_invoker = true) AS
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

-- 1. What waits, by what it waits for; what runs; what has ended within 24 hours.
CREATE OR REPLACE VIEW queue_status WITH (security_invoker = true) AS
WITH open AS (
    SELECT count(*) FILTER (WHERE j.status = 'queued') AS starting,
           count(*) FILTER (WHERE j.status = 'processing') AS running
    FROM job_attempts a JOIN background_jobs j ON j.id = a.job_id WHERE a.ended_at IS NULL
), day AS (
    SELECT coalesce(sum(attempts) FILTER (WHERE outcome = 'succeeded'), 0) AS completed,
           coalesce(sum(jobs_failed), 0) AS failed, coalesce(sum(jobs_cancelled), 0) AS cancelled
    FROM job_rollups_now WHERE minute > now() - interval '24 hours'
)
SELECT line.status, line.stage, line.jobs
FROM open, day, LATERAL (VALUES
    ('queued', 'ready', (SELECT count(*) FROM background_jobs WHERE stage = 'ready')),
    ('queued', 'scheduled', (SELECT count(*) FROM background_jobs WHERE stage = 'scheduled')),
    ('queued', 'parked', (SELECT count(*) FROM background_jobs WHERE stage = 'parked')),
    ('queued', 'blocked', (SELECT count(DISTINCT job_id) FROM job_dependencies)),
    ('queued', 'starting', open.starting),
    ('processing', 'running', open.running),
    ('completed', '24 hours', day.completed),
    ('failed', '24 hours', day.failed),
    ('cancelled', '24 hours', day.cancelled)
) AS line (status, stage, jobs);

-- 2. The jobs that failed in the last hour.
CREATE OR REPLACE VIEW failed_last_hour WITH (security_invoker = true) AS
SELECT id, type, error, created_at, failed_at, retry_count, payload, attempt, outcome_reason,
       error_category
FROM background_jobs
WHERE status = 'failed' AND failed_at > now() - interval '1 hour'
ORDER BY failed_at DESC;

-- 3. What became of each type's jobs within 7 days, and how long their successful runs took.
CREATE OR REPLACE VIEW times_per_type WITH (security_invoker = true) AS
WITH ended AS (
    SELECT type, sum(attempts) AS attempts,
           coalesce(sum(attempts) FILTER (WHERE outcome = 'succeeded'), 0) AS completed,
           sum(jobs_failed) AS failed, sum(jobs_cancelled) AS cancelled,
           round(sum(duration_ms_sum) FILTER (WHERE outcome = 'succeeded')
                 / sum(attempts) FILTER (WHERE outcome = 'succeeded')) AS avg_ms,
           max(duration_ms_max) FILTER (WHERE outcome = 'succeeded') AS max_ms
    FROM job_rollups_now WHERE minute > now() - interval '7 days'
    GROUP BY type
)
SELECT ended.type, ended.completed + ended.failed + ended.cancelled AS total_jobs,
       ended.completed AS successful, ended.failed, ended.cancelled, ended.attempts,
       ended.avg_ms AS avg_duration_ms, ended.max_ms AS max_duration_ms,
       round(p.median_ms) AS median_duration_ms, round(p.p95_ms) AS p95_duration_ms,
       round(100.0 * ended.completed / nullif(ended.completed + ended.failed, 0), 2) AS success_rate
FROM ended LEFT JOIN run_time_percentiles(now() - interval '7 days') p USING (type)
ORDER BY ended.attempts DESC;

-- 4. What runs now, the longest first.
CREATE OR REPLACE VIEW running_now WITH (security_invoker = true) AS
SELECT j.id, j.type, extract(epoch FROM now() - a.started_at) AS seconds_running, a.started_at,
       j.payload, a.attempt, a.runner, a.deadline_seconds, h.beat_at AS heartbeat_at,
       extract(epoch FROM now() - h.beat_at) AS seconds_since_heartbeat, h.progress,
       j.resource_name, a.pod_name, j.cancel_requested_at, a.lease_until
FROM job_attempts a
JOIN background_jobs j ON j.id = a.job_id
LEFT JOIN job_heartbeats h ON h.job_id = a.job_id AND h.attempt = a.attempt
WHERE a.ended_at IS NULL AND j.status = 'processing'
ORDER BY a.started_at;

-- 5. Jobs that came and jobs that ended, per hour of the last 24.
CREATE OR REPLACE VIEW throughput_per_hour WITH (security_invoker = true) AS
WITH minutes AS (
    SELECT minute, jobs AS came, 0 AS completed, 0 AS failed, 0 AS cancelled, 0::bigint AS ran_ms
    FROM job_arrivals_now
    UNION ALL
    SELECT minute, 0, CASE WHEN outcome = 'succeeded' THEN attempts ELSE 0 END, jobs_failed,
           jobs_cancelled, CASE WHEN outcome = 'succeeded' THEN duration_ms_sum ELSE 0 END
    FROM job_rollups_now
)
SELECT date_trunc('hour', minute) AS hour, sum(came) AS total_jobs, sum(completed) AS completed,
       sum(failed) AS failed, sum(cancelled) AS cancelled,
       round(sum(ran_ms) / nullif(sum(completed), 0)) AS avg_duration_ms
FROM minutes
WHERE minute >= date_trunc('hour', now() - interval '23 hours')
GROUP BY 1
ORDER BY 1 DESC;

-- 6. The jobs of each repository within 7 days: those that name its row, and those whose type's
-- limit counts by repository.full_name. With its owner's rights: services have none in that schema.
CREATE OR REPLACE VIEW repository_status AS
WITH jobs AS (
    SELECT coalesce(r.full_name, CASE WHEN coalesce(t.spec->'concurrency'->>'key',
                                                    t.spec->'throttle'->>'key')
                                           ~ '(^| )repository[.]full_name( |$)'
                                       AND j.concurrency_key LIKE '%/%'
                                      THEN j.concurrency_key END) AS full_name,
           j.repository_id, j.status, j.created_at, j.completed_at
    FROM background_jobs j
    LEFT JOIN job_types t ON t.type = j.type
    LEFT JOIN github.repositories r ON r.id = j.repository_id
    WHERE j.created_at > now() - interval '7 days'
      AND (j.repository_id IS NOT NULL OR j.concurrency_key <> '')
), counted AS (
    SELECT full_name, count(*) AS total_jobs,
           count(*) FILTER (WHERE status = 'completed') AS completed_jobs,
           count(*) FILTER (WHERE status = 'failed') AS failed_jobs,
           count(*) FILTER (WHERE status IN ('queued', 'processing')) AS open_jobs,
           max(created_at) AS last_job_created, max(completed_at) AS last_job_completed
    FROM jobs WHERE full_name IS NOT NULL GROUP BY full_name
)
SELECT counted.full_name, stored.id AS repository_id, counted.total_jobs, counted.completed_jobs,
       counted.failed_jobs, counted.open_jobs, counted.last_job_created,
       counted.last_job_completed, stored.sync_status, stored.last_synced_at
FROM counted LEFT JOIN LATERAL (
    SELECT r.id, r.sync_status, r.last_synced_at FROM github.repositories r
    WHERE lower(r.full_name) = lower(counted.full_name)
    ORDER BY r.last_updated_at DESC LIMIT 1
) stored ON true
ORDER BY counted.total_jobs DESC;

-- 7. What failed and will be tried again, the next first.
CREATE OR REPLACE VIEW waiting_for_retry WITH (security_invoker = true) AS
SELECT id, type, retry_count, max_retries, error, outcome_reason, error_category, attempt, run_at,
       extract(epoch FROM run_at - now()) AS seconds_to_retry
FROM background_jobs
WHERE stage = 'scheduled' AND attempt > 0
ORDER BY run_at;

-- 8. Jobs of the last 24 hours that took more than a minute.
CREATE OR REPLACE VIEW long_running_jobs WITH (security_invoker = true) AS
SELECT id, type, duration_ms / 1000.0 AS duration_seconds, created_at, started_at, completed_at,
       deadline_seconds, payload
FROM background_jobs
WHERE status = 'completed' AND duration_ms > 60000 AND created_at > now() - interval '24 hours'
ORDER BY duration_ms DESC;

-- 9. The success rate of the jobs that ended, per day of the last 30.
CREATE OR REPLACE VIEW success_trend WITH (security_invoker = true) AS
WITH days AS (
    SELECT date_trunc('day', minute)::date AS date,
           coalesce(sum(attempts) FILTER (WHERE outcome = 'succeeded'), 0) AS successful,
           sum(jobs_failed) AS failed, sum(jobs_cancelled) AS cancelled
    FROM job_rollups_now
    WHERE minute >= date_trunc('day', now() - interval '29 days')
    GROUP BY 1
)
SELECT date, successful + failed + cancelled AS total, successful, failed, cancelled,
       round(100.0 * successful / nullif(successful + failed, 0), 2) AS success_rate
FROM days
ORDER BY date DESC;

-- 10. Events of the last 24 hours with several jobs. One of each type is as it should be;
-- `duplicates` counts those beyond it.
CREATE OR REPLACE VIEW duplicate_events WITH (security_invoker = true) AS
SELECT inngest_event_id, count(*) AS job_count, count(*) - count(DISTINCT type) AS duplicates,
       string_agg(DISTINCT type, ', ') AS job_types, string_agg(DISTINCT status, ', ') AS statuses,
       min(created_at) AS first_job, max(created_at) AS last_job
FROM background_jobs
WHERE inngest_event_id IS NOT NULL AND created_at > now() - interval '24 hours'
GROUP BY inngest_event_id
HAVING count(*) > 1
ORDER BY duplicates DESC, job_count DESC;

-- Running for more than 5 minutes, and 5 minutes without a sign of life; `reason` tells which kind.
CREATE OR REPLACE VIEW stuck_jobs WITH (security_invoker = true) AS
SELECT id, type, attempt, runner,
       CASE WHEN lease_until < now() THEN 'LeaseExpired'
            WHEN started_at + make_interval(secs => deadline_seconds) < now() THEN 'OverDeadline'
            WHEN heartbeat_at IS NULL THEN 'NeverBeat'
            ELSE 'StoppedBeating' END AS reason,
       started_at, seconds_running, deadline_seconds, heartbeat_at, seconds_since_heartbeat,
       cancel_requested_at, resource_name, pod_name
FROM running_now
WHERE started_at < now() - interval '5 minutes'
  AND (heartbeat_at IS NULL OR heartbeat_at < now() - interval '5 minutes');

-- Types in the wrong mode, judged by 7 days and at least 20 runs: quick ones that overrun their
-- budget in a tenth of their runs, and long ones with a handler that fit 8 s, the longest budget.
CREATE OR REPLACE VIEW misplaced_types WITH (security_invoker = true) AS
SELECT t.type, 'quick' AS mode, 'long' AS better_mode, r.runs,
       round(100.0 * r.overruns / r.runs, 1) AS over_budget_percent, NULL::numeric AS p95_seconds,
       coalesce((t.spec->>'budgetSeconds')::numeric, 8) AS budget_seconds
FROM job_types t JOIN (
    SELECT type, sum(inline_runs) AS runs,
           coalesce(sum(inline_runs) FILTER (WHERE outcome = 'over_budget'), 0) AS overruns
    FROM job_rollups_now WHERE minute > now() - interval '7 days' GROUP BY type
) r USING (type)
WHERE t.deleted_at IS NULL AND t.spec->>'mode' = 'quick' AND r.runs >= 20
  AND r.overruns >= 0.1 * r.runs
UNION ALL
SELECT t.type, 'long', 'quick', p.runs, NULL, round(p.p95_ms::numeric / 1000, 1), 8
FROM job_types t JOIN run_time_percentiles(now() - interval '7 days', 'pod') p USING (type)
WHERE t.deleted_at IS NULL AND coalesce(t.spec->>'mode', 'long') = 'long'
  AND t.spec->>'image' IS NULL AND p.runs >= 20 AND p.p95_ms <= 8000;

-- Whether the queue is well: status healthy, degraded or unhealthy, the figures it follows from,
-- and why. Jobs that are due wait; those that are scheduled, or of a paused type, do not count.
CREATE OR REPLACE FUNCTION get_queue_health(
    queued_degraded integer DEFAULT 100,
    queued_unhealthy integer DEFAULT 500,
    processing_degraded integer DEFAULT 20,
    oldest_degraded_seconds double precision DEFAULT 600,
    oldest_unhealthy_seconds double precision DEFAULT 3600,
    failure_degraded_percent numeric DEFAULT 10,
    failure_unhealthy_percent numeric DEFAULT 50
) RETURNS TABLE (
    status text,
    queue_depth bigint,
    processing_count bigint,
    failed_count bigint,                           -- within 24 hours, as the next three
    oldest_queued_job_age_seconds double precision,  -- since it was due; 0: none waits
    avg_processing_time_seconds double precision,  -- of successful runs; null: there were none
    failure_rate_percent numeric,                  -- null: no job ended
    warnings text[],
    errors text[]
)
LANGUAGE sql STABLE SET search_path = hybridjobs, pg_temp AS $$
    WITH lines AS (
        SELECT count(*) AS jobs, s.stage, s.type FROM background_jobs s
        WHERE s.stage = 'ready' GROUP BY s.stage, s.type
        UNION ALL
        SELECT count(*), s.stage, s.type FROM background_jobs s
        WHERE s.stage = 'parked' GROUP BY s.stage, s.type
    ), waiting AS (
        SELECT coalesce(sum(l.jobs), 0)::bigint AS depth,
               coalesce(extract(epoch FROM now() - min(head.run_at)), 0)::double precision AS age
        FROM lines l
        -- The head of each line has waited longest, but for jobs of lower priority.
        LEFT JOIN LATERAL (
            SELECT j.run_at FROM background_jobs j WHERE j.stage = 'ready' AND j.type = l.type
            ORDER BY j.order_key, j.id LIMIT 1
        ) head ON l.stage = 'ready'
        WHERE NOT EXISTS (SELECT FROM job_types t WHERE t.type = l.type AND t.paused_at IS NOT NULL)
    ), open AS (
        SELECT count(*) AS running FROM job_attempts a JOIN background_jobs j ON j.id = a.job_id
        WHERE a.ended_at IS NULL AND j.status = 'processing'
    ), day AS (
        SELECT coalesce(sum(r.attempts) FILTER (WHERE r.outcome = 'succeeded'), 0) AS completed,
               coalesce(sum(r.jobs_failed), 0) AS failed,
               sum(r.duration_ms_sum) FILTER (WHERE r.outcome = 'succeeded') AS ran_ms
        FROM job_rollups_now r WHERE r.minute > now() - interval '24 hours'
    ), figures AS (
        SELECT w.depth, o.running, d.failed::bigint AS failed, w.age,
               (d.ran_ms / nullif(d.completed, 0) / 1000)::double precision AS avg_seconds,
               round(100.0 * d.failed / nullif(d.completed + d.failed, 0), 2) AS failure_rate
        FROM waiting w, open o, day d
    ), judged AS (
        SELECT f.*,
               array_remove(ARRAY[
                   CASE WHEN f.depth > queued_degraded AND f.depth <= queued_unhealthy
                        THEN format('%s jobs wait', f.depth) END,
                   CASE WHEN f.running > processing_degraded
                        THEN format('%s jobs run at once', f.running) END,
                   CASE WHEN f.age > oldest_degraded_seconds AND f.age <= oldest_unhealthy_seconds
                        THEN format('a job has waited for %s s', round(f.age)) END,
                   CASE WHEN f.failure_rate > failure_degraded_percent
                             AND f.failure_rate <= failure_unhealthy_percent
                        THEN format('%s %% of jobs fail', f.failure_rate) END,
                   (SELECT format('the queue is paused by %s', q.paused_by) FROM queue_settings q
                    WHERE q.paused_at IS NOT NULL)
               ], NULL) AS warnings,
               array_remove(ARRAY[
                   CASE WHEN f.depth > queued_unhealthy
                        THEN format('%s jobs wait', f.depth) END,
                   CASE WHEN f.age > oldest_unhealthy_seconds
                        THEN format('a job has waited for %s s', round(f.age)) END,
                   CASE WHEN f.failure_rate > failure_unhealthy_percent
                        THEN format('%s %% of jobs fail', f.failure_rate) END
               ], NULL) AS errors
        FROM figures f
    )
    SELECT CASE WHEN j.errors <> '{}' THEN 'unhealthy' WHEN j.warnings <> '{}' THEN 'degraded'
                ELSE 'healthy' END,
           j.depth, j.running, j.failed, j.age, j.avg_seconds, j.failure_rate, j.warnings, j.errors
    FROM judged j
$$;

-- How many jobs of each type are in line for a place, and for how long the first of each has been due.
CREATE OR REPLACE VIEW ready_by_type WITH (security_invoker = true) AS
SELECT line.type, line.jobs,
       greatest(extract(epoch FROM now() - head.run_at), 0)::double precision AS oldest_seconds
FROM (SELECT type, count(*) AS jobs FROM background_jobs WHERE stage = 'ready' GROUP BY type) line
CROSS JOIN LATERAL (
    SELECT j.run_at FROM background_jobs j WHERE j.stage = 'ready' AND j.type = line.type
    ORDER BY j.order_key, j.id LIMIT 1
) head;

-- The name by which people's own queries know what is stored of repositories; has the columns that
-- the table had when this file was last run.
CREATE OR REPLACE VIEW repositories AS SELECT * FROM github.repositories;

GRANT SELECT ON job_statistics, queue_status, failed_last_hour, times_per_type, running_now,
    throughput_per_hour, repository_status, waiting_for_retry, long_running_jobs, success_trend,
    duplicate_events, stuck_jobs, misplaced_types, ready_by_type TO hybridjobs_service, hybridjobs_reader;
GRANT SELECT ON repositories TO hybridjobs_reader;
REVOKE ALL ON FUNCTION get_job_statistics_summary, get_queue_health FROM PUBLIC;
GRANT EXECUTE ON FUNCTION get_job_statistics_summary, get_queue_health
    TO hybridjobs_service, hybridjobs_reader;
