"""The statements of revision 3c36ce4, the last before the queue's stages: an older program's words.

They are data, and stay as they were, whatever becomes of the store.
"""


# store/enqueue.py

INSERT = """
INSERT INTO hybridjobs.background_jobs
    (id, type, payload, source, key, priority, order_key, max_retries, deadline_seconds,
     parent_id, submitted_by, traceparent, inngest_event_id,
     status, attempt, dispatched_at, started_at)
SELECT id, type, payload::jsonb, source, key, priority,
       now() - make_interval(mins => priority), max_retries, deadline_seconds, parent_id,
       submitted_by, traceparent, inngest_event_id,
       CASE WHEN lease_seconds IS NULL THEN 'queued' ELSE 'processing' END,
       CASE WHEN lease_seconds IS NULL THEN 0 ELSE 1 END,
       CASE WHEN lease_seconds IS NOT NULL THEN now() END,
       CASE WHEN lease_seconds IS NOT NULL THEN now() END
FROM unnest(
    %(id)b::uuid[], %(type)b::text[], %(payload)b::text[], %(source)b::text[], %(key)b::text[],
    %(priority)b::int4[], %(max_retries)b::int4[], %(deadline_seconds)b::int4[],
    %(parent_id)b::uuid[], %(submitted_by)b::text[], %(traceparent)b::text[],
    %(inngest_event_id)b::text[], %(lease_seconds)b::float8[]
) AS input (id, type, payload, source, key, priority, max_retries, deadline_seconds,
            parent_id, submitted_by, traceparent, inngest_event_id, lease_seconds)
ON CONFLICT DO NOTHING
"""
INSERT_BEGUN = """
WITH inserted AS (

INSERT INTO hybridjobs.background_jobs
    (id, type, payload, source, key, priority, order_key, max_retries, deadline_seconds,
     parent_id, submitted_by, traceparent, inngest_event_id,
     status, attempt, dispatched_at, started_at)
SELECT id, type, payload::jsonb, source, key, priority,
       now() - make_interval(mins => priority), max_retries, deadline_seconds, parent_id,
       submitted_by, traceparent, inngest_event_id,
       CASE WHEN lease_seconds IS NULL THEN 'queued' ELSE 'processing' END,
       CASE WHEN lease_seconds IS NULL THEN 0 ELSE 1 END,
       CASE WHEN lease_seconds IS NOT NULL THEN now() END,
       CASE WHEN lease_seconds IS NOT NULL THEN now() END
FROM unnest(
    %(id)b::uuid[], %(type)b::text[], %(payload)b::text[], %(source)b::text[], %(key)b::text[],
    %(priority)b::int4[], %(max_retries)b::int4[], %(deadline_seconds)b::int4[],
    %(parent_id)b::uuid[], %(submitted_by)b::text[], %(traceparent)b::text[],
    %(inngest_event_id)b::text[], %(lease_seconds)b::float8[]
) AS input (id, type, payload, source, key, priority, max_retries, deadline_seconds,
            parent_id, submitted_by, traceparent, inngest_event_id, lease_seconds)
ON CONFLICT DO NOTHING

    RETURNING id
), begun AS (
    INSERT INTO hybridjobs.job_attempts
        (job_id, attempt, runner, type_generation, deadline_seconds, started_at, lease_until)
    SELECT id, 1, 'inline', type_generation, deadline_seconds, now(),
           now() + make_interval(secs => lease_seconds)
    FROM inserted
    JOIN unnest(
        %(id)b::uuid[], %(type_generation)b::int8[], %(deadline_seconds)b::int4[],
        %(lease_seconds)b::float8[]
    ) AS input (id, type_generation, deadline_seconds, lease_seconds) USING (id)
    WHERE lease_seconds IS NOT NULL
)
SELECT id FROM inserted
"""

# store/claim.py

TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s) AS held"
LIVE = """
SELECT job.type, count(*) AS live
FROM hybridjobs.job_attempts attempt JOIN hybridjobs.background_jobs job ON job.id = attempt.job_id
WHERE attempt.ended_at IS NULL AND attempt.runner = 'pod'
GROUP BY job.type
"""
TYPES = """
SELECT type,
       CASE WHEN spec->'concurrency'->'key' IS NULL THEN spec->'concurrency'->'limit' END
           AS concurrency_limit
FROM hybridjobs.job_types WHERE paused_at IS NULL AND deleted_at IS NULL
"""
CLAIM = """
WITH candidates AS (
    SELECT id, type, order_key FROM hybridjobs.background_jobs
    WHERE status = 'queued' AND dispatched_at IS NULL AND run_at <= now()
      AND cancel_requested_at IS NULL AND type = ANY(%(types)s)
    ORDER BY order_key, id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), ranked AS (
    SELECT id, row_number() OVER (PARTITION BY type ORDER BY order_key, id) AS place, type
    FROM candidates
), chosen AS (
    SELECT ranked.id FROM ranked
    JOIN unnest(%(types)s::text[], %(rooms)s::int[]) AS room (type, places) USING (type)
    WHERE ranked.place <= room.places
), claimed AS (
    UPDATE hybridjobs.background_jobs job
    SET attempt = job.attempt + 1, dispatched_at = now()
    FROM chosen WHERE job.id = chosen.id
    RETURNING job.id, job.type, job.attempt, job.deadline_seconds
)
INSERT INTO hybridjobs.job_attempts (job_id, attempt, runner, type_generation, deadline_seconds)
SELECT claimed.id, claimed.attempt, 'pod', job_type.generation,
       coalesce(claimed.deadline_seconds, (job_type.spec->>'deadlineSeconds')::int, 900)
FROM claimed JOIN hybridjobs.job_types job_type USING (type)
RETURNING job_id
"""
CLAIMS = """
SELECT attempt.job_id, job.type, attempt.attempt, attempt.deadline_seconds, job.priority,
       'sha256:' || encode(sha256(convert_to(job.payload::text, 'UTF8')), 'hex') AS payload_digest,
       job.namespace, job.resource_name, job.resource_uid, job.traceparent
FROM hybridjobs.job_attempts attempt JOIN hybridjobs.background_jobs job ON job.id = attempt.job_id
WHERE attempt.ended_at IS NULL AND attempt.runner = 'pod' AND attempt.dispatched_at IS NULL
  AND (attempt.job_id = ANY(%(ids)s) OR attempt.claimed_at < now() - %(redrive_after)s)
ORDER BY attempt.claimed_at, attempt.job_id
LIMIT %(limit)s
"""
DISPATCHED = """
WITH job AS (
    SELECT id FROM hybridjobs.background_jobs WHERE id = %(job_id)s FOR UPDATE
), marked AS (
    UPDATE hybridjobs.job_attempts attempt
    SET dispatched_at = coalesce(attempt.dispatched_at, now()),
        hybridjob_uid = coalesce(attempt.hybridjob_uid, %(uid)s)
    FROM job
    WHERE attempt.job_id = job.id AND attempt.attempt = %(attempt)s AND attempt.ended_at IS NULL
    RETURNING attempt.job_id
)
UPDATE hybridjobs.background_jobs job
SET namespace = %(namespace)s, resource_name = %(name)s, resource_uid = %(uid)s
FROM marked WHERE job.id = marked.job_id
"""

# store/attempts.py

READ = """
SELECT job.id AS job_id, job.type, job.status, job.payload::text AS payload,
       job.cancel_requested_at IS NOT NULL AS cancel_requested, job.error, job.run_at,
       job.resource_uid, job.traceparent, job.started_at, job.outcome_reason, job.duration_ms,
       coalesce(job.completed_at, job.failed_at) AS finished_at, job.attempt,
       CASE WHEN last.attempt IS NOT NULL AND last.ended_at IS NULL THEN last.attempt END
           AS open_attempt,
       coalesce(last.deadline_seconds, job.deadline_seconds) AS deadline_seconds,
       last.claimed_at, last.started_at AS attempt_started_at, last.ended_at AS attempt_ended_at,
       last.hybridjob_uid, last.job_uid, last.pod_name, last.exit_code, last.reported,
       last.log_tail IS NOT NULL AS has_log
FROM hybridjobs.background_jobs job
LEFT JOIN hybridjobs.job_attempts last ON last.job_id = job.id AND last.attempt = job.attempt
WHERE job.id = %s
"""
BIND_HYBRIDJOB = """
WITH job AS (
    SELECT id FROM hybridjobs.background_jobs WHERE id = %(job_id)s FOR UPDATE
), bound AS (
    UPDATE hybridjobs.job_attempts attempt
    SET hybridjob_uid = coalesce(attempt.hybridjob_uid, %(uid)s),
        dispatched_at = coalesce(attempt.dispatched_at, now())
    FROM job
    WHERE attempt.job_id = job.id AND attempt.attempt = %(attempt)s AND attempt.ended_at IS NULL
    RETURNING attempt.job_id, attempt.hybridjob_uid
), noted AS (
    UPDATE hybridjobs.background_jobs job
    SET namespace = %(namespace)s, resource_name = %(name)s, resource_uid = %(uid)s
    FROM bound
    WHERE job.id = bound.job_id AND bound.hybridjob_uid = %(uid)s AND job.resource_uid IS NULL
)
SELECT hybridjob_uid FROM bound
"""
BIND_JOB = """
UPDATE hybridjobs.job_attempts SET job_uid = coalesce(job_uid, %(uid)s)
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NULL
RETURNING job_uid
"""
START = """
WITH job AS (
    SELECT id FROM hybridjobs.background_jobs WHERE id = %(job_id)s FOR UPDATE
), started AS (
    UPDATE hybridjobs.job_attempts attempt
    SET started_at = coalesce(attempt.started_at, %(started_at)s), pod_name = %(pod_name)s,
        pod_uid = coalesce(attempt.pod_uid, %(pod_uid)s)
    FROM job
    WHERE attempt.job_id = job.id AND attempt.attempt = %(attempt)s AND attempt.ended_at IS NULL
      AND coalesce(attempt.pod_uid, %(pod_uid)s) = %(pod_uid)s
    RETURNING attempt.job_id, attempt.started_at
)
UPDATE hybridjobs.background_jobs job
SET status = 'processing', started_at = started.started_at
FROM started WHERE job.id = started.job_id
RETURNING job.id
"""
BEAT = """
INSERT INTO hybridjobs.job_heartbeats (job_id, attempt, progress)
SELECT job_id, attempt, %(progress)s::jsonb FROM hybridjobs.job_attempts
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NULL
ON CONFLICT (job_id) DO UPDATE
SET attempt = excluded.attempt, beat_at = clock_timestamp(),
    progress = coalesce(excluded.progress,
                        CASE WHEN job_heartbeats.attempt = excluded.attempt
                             THEN job_heartbeats.progress END)
RETURNING (SELECT cancel_requested_at IS NOT NULL FROM hybridjobs.background_jobs
           WHERE id = %(job_id)s) AS cancel_requested
"""
SAVE_CHECKPOINT = """
INSERT INTO hybridjobs.job_checkpoints (job_id, attempt, data)
SELECT job_id, attempt, %(data)s::jsonb FROM hybridjobs.job_attempts
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NULL
ON CONFLICT (job_id) DO UPDATE
SET attempt = excluded.attempt, data = excluded.data, saved_at = clock_timestamp()
RETURNING job_id
"""

# store/outcome.py

LOCK = """
SELECT job.status, job.attempt, job.retry_count, job.max_retries, job.priority,
       job.cancel_requested_at IS NOT NULL AS cancel_requested, job_type.spec->'retry' AS retry,
       now() AS now
FROM hybridjobs.background_jobs job LEFT JOIN hybridjobs.job_types job_type USING (type)
WHERE job.id = %(job_id)s FOR UPDATE OF job
"""
END = """
UPDATE hybridjobs.job_attempts attempt
SET ended_at = greatest(coalesce(%(ended_at)s, now()), claimed_at, attempt.started_at,
                        %(started_at)s),
    outcome = %(outcome)s,
    reason = %(reason)s, error_category = %(category)s, exit_code = %(exit_code)s,
    message = %(message)s, log_tail = coalesce(%(log_tail)s, log_tail),
    started_at = coalesce(attempt.started_at, %(started_at)s),
    pod_name = coalesce(%(pod_name)s, pod_name), spent_retry = %(spent_retry)s,
    progress = (SELECT progress FROM hybridjobs.job_heartbeats beat
                WHERE beat.job_id = attempt.job_id AND beat.attempt = attempt.attempt)
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NULL
RETURNING started_at, ended_at, progress
"""
FREE_RETRIES = """
SELECT count(*) AS free_retries FROM hybridjobs.job_attempts
WHERE job_id = %(job_id)s AND outcome = %(outcome)s AND NOT spent_retry
"""
FINISH = """
UPDATE hybridjobs.background_jobs
SET status = %(status)s, result = %(result)s::jsonb, error = %(error)s,
    started_at = CASE WHEN %(status)s = 'completed'
                      THEN coalesce(%(started_at)s, %(ended_at)s) ELSE %(started_at)s END,
    completed_at = CASE WHEN %(status)s = 'completed' THEN %(ended_at)s::timestamptz END,
    failed_at = CASE WHEN %(status)s = 'failed' THEN %(ended_at)s::timestamptz END,
    outcome_reason = %(reason)s, error_category = %(category)s,
    progress = coalesce(%(progress)s::jsonb, progress)
WHERE id = %(job_id)s
"""
AGAIN = """
UPDATE hybridjobs.background_jobs
SET status = 'queued', run_at = %(run_at)s, order_key = %(order_key)s, dispatched_at = NULL,
    started_at = NULL, retry_count = retry_count + %(spent)s, error = %(error)s,
    outcome_reason = %(reason)s, error_category = %(category)s,
    progress = coalesce(%(progress)s::jsonb, progress)
WHERE id = %(job_id)s
"""
DEAD_LETTER = """
INSERT INTO hybridjobs.dead_letter_queue
    (id, original_job_id, type, payload, error_history, failure_count, error_category,
     first_failed_at, last_failed_at)
SELECT %(id)s, job.id, job.type, job.payload,
       jsonb_agg(jsonb_build_object('attempt', attempt.attempt, 'outcome', attempt.outcome,
                                    'reason', attempt.reason, 'message', attempt.message,
                                    'endedAt', attempt.ended_at) ORDER BY attempt.attempt),
       count(*), %(category)s, min(attempt.ended_at), max(attempt.ended_at)
FROM hybridjobs.background_jobs job
JOIN hybridjobs.job_attempts attempt ON attempt.job_id = job.id
WHERE job.id = %(job_id)s
GROUP BY job.id
ON CONFLICT (original_job_id) WHERE resolved_at IS NULL DO NOTHING
"""
EVIDENCE = """
UPDATE hybridjobs.job_attempts
SET log_tail = coalesce(log_tail, %(log_tail)s), exit_code = coalesce(exit_code, %(exit_code)s),
    pod_name = coalesce(pod_name, %(pod_name)s)
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NOT NULL
"""
CANCEL_QUEUED = """
UPDATE hybridjobs.background_jobs
SET status = 'cancelled', cancel_requested_at = coalesce(cancel_requested_at, now()),
    outcome_reason = %(reason)s
WHERE id = %(job_id)s AND status = 'queued' AND dispatched_at IS NULL
RETURNING status
"""
REQUEST_CANCEL = """
UPDATE hybridjobs.background_jobs SET cancel_requested_at = coalesce(cancel_requested_at, now())
WHERE id = %(job_id)s AND status IN ('queued', 'processing')
RETURNING status
"""
INLINE_SUCCESS = """
WITH input AS (
    SELECT * FROM unnest(%(ids)b::uuid[], %(results)b::text[], %(logs)b::text[])
         AS input (job_id, result, log_tail)
), locked AS (
    SELECT id FROM hybridjobs.background_jobs WHERE id = ANY(%(ids)b::uuid[])
    ORDER BY id FOR UPDATE
), ended AS (
    UPDATE hybridjobs.job_attempts attempt
    SET ended_at = now(), outcome = 'succeeded', reason = 'Completed', log_tail = input.log_tail,
        spent_retry = false
    FROM input JOIN locked ON locked.id = input.job_id
    WHERE attempt.job_id = input.job_id AND attempt.attempt = 1 AND attempt.ended_at IS NULL
    RETURNING attempt.job_id
)
UPDATE hybridjobs.background_jobs job
SET status = 'completed', result = input.result::jsonb, completed_at = now(),
    outcome_reason = 'Completed'
FROM input JOIN ended USING (job_id) WHERE job.id = input.job_id
RETURNING job.id
"""
