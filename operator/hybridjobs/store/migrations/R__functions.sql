-- What applications and administrators may ask of the queue. Replaced as a whole whenever this file
-- changes; the services call the same functions, so that there is one way to do each thing.

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

-- The value at a path, as text. With a place from the end (-1), `json #>>` may count from the end of
-- another array that comes before (seen in Postgres 18.4); jsonb does not.
CREATE OR REPLACE FUNCTION value_at(payload json, path text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN path ~ '(^|\.)-[0-9]' THEN payload::jsonb #>> string_to_array(path, '.')
                ELSE payload #>> string_to_array(path, '.') END
$$;

-- The values at several paths with / between them, as are the paths; null where one is missing.
CREATE OR REPLACE FUNCTION joined_values(payload json, paths text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN bool_and(value IS NOT NULL) THEN string_agg(value, '/' ORDER BY place) END
    FROM unnest(string_to_array(paths, '/')) WITH ORDINALITY AS asked (path, place)
    CROSS JOIN LATERAL (SELECT hybridjobs.value_at(payload, path)) AS found (value)
$$;

-- The key that a limit counts by: the value at a path such as repository.full_name, or the first
-- that is there of several ways to say it, repository.full_name | owner/repo. Jobs without one
-- count together, as ''. Long values are cut, and told apart by their hash.
CREATE OR REPLACE FUNCTION concurrency_key_at(payload json, path text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN length(value) > 200 THEN left(value, 160) || ' ' || md5(value)
                ELSE coalesce(value, '') END
    FROM (SELECT CASE WHEN path ~ '[/|]'
                      THEN (SELECT joined
                            FROM unnest(string_to_array(path, ' | ')) WITH ORDINALITY
                                 AS way (paths, place)
                            CROSS JOIN LATERAL (SELECT hybridjobs.joined_values(payload, paths))
                                 AS found (joined)
                            WHERE joined IS NOT NULL ORDER BY place LIMIT 1)
                      ELSE hybridjobs.value_at(payload, path) END) AS found (value)
$$;

-- Where a new row waits. Reading parked_keys FOR KEY SHARE keeps the claim from forgetting the key
-- before this row is there to be seen.
CREATE OR REPLACE FUNCTION first_stage(type text, key text, run_at timestamptz, blocked boolean)
RETURNS text LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF blocked THEN
        RETURN 'blocked';
    ELSIF run_at > now() THEN
        RETURN 'scheduled';
    ELSIF key IS NULL THEN
        RETURN 'ready';
    END IF;
    PERFORM FROM parked_keys p
    WHERE p.type = first_stage.type AND p.concurrency_key = key FOR KEY SHARE;
    RETURN CASE WHEN FOUND THEN 'parked' ELSE 'ready' END;
END $$;

-- Whether a caller may ask for it. Which addresses may be called the ingress knows, which calls them.
CREATE OR REPLACE FUNCTION is_callback(callback jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN callback IS NULL THEN true
                WHEN jsonb_typeof(callback) <> 'object' THEN false
                ELSE callback - '{url,on}'::text[] = '{}'
                     AND coalesce(jsonb_typeof(callback->'url') = 'string', false)
                     AND callback->>'url' ~* '^https?://[^[:space:][:cntrl:]]+$'
                     AND length(callback->>'url') <= 2048
                     AND (NOT callback ? 'on'
                          OR jsonb_typeof(callback->'on') = 'array'
                             AND callback->'on' <> '[]'
                             AND callback->'on' <@ '["completed", "failed", "cancelled"]')
           END
$$;

-- background_jobs.callback: the type's, and the job's own.
CREATE OR REPLACE FUNCTION callbacks_of(of_type jsonb, own jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT nullif(
        CASE WHEN of_type IS NULL THEN '[]'
             ELSE jsonb_build_array(jsonb_build_object(
                 'url', of_type->'url', 'secret', coalesce(of_type->'secret', '"default"'),
                 'on', coalesce(of_type->'events', '["completed", "failed", "cancelled"]'))) END
        || CASE WHEN own IS NULL THEN '[]'
                ELSE jsonb_build_array(jsonb_build_object(
                    'url', own->'url', 'secret', 'default',
                    'on', coalesce(own->'on', '["completed", "failed", "cancelled"]'))) END, '[]')
$$;

-- Whether one of its attempts is open: it is being executed, or about to be.
CREATE OR REPLACE FUNCTION is_running(job uuid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = hybridjobs, pg_temp AS $$
    SELECT EXISTS (SELECT FROM job_attempts a WHERE a.job_id = job AND a.ended_at IS NULL)
$$;

-- Earlier ones took less; with another signature they would stand side by side. Dropped here and
-- not by a migration before, so that applications have the one or the other at any moment.
DROP FUNCTION IF EXISTS submit_job(text, jsonb, text, integer, timestamptz, uuid);
DROP FUNCTION IF EXISTS submit_job(text, jsonb, text, integer, timestamptz, uuid, integer, integer,
                                   text, text, uuid[], text, uuid);
DROP FUNCTION IF EXISTS submit_job(text, jsonb, text, integer, timestamptz, uuid, integer, integer,
                                   text, text, uuid[], text, uuid, jsonb);

-- Enqueue inside the caller's own transaction. The same (key, type) gives the same job, and so does
-- the same (unique_key, type) while that job is queued, or open (queued or processing).
CREATE OR REPLACE FUNCTION submit_job(
    type text,
    payload jsonb DEFAULT '{}',
    key text DEFAULT NULL,
    priority integer DEFAULT NULL,            -- the type's
    run_at timestamptz DEFAULT NULL,          -- now
    parent_id uuid DEFAULT NULL,              -- a job that runs, unless a service asks
    deadline_seconds integer DEFAULT NULL,    -- the type's
    max_retries integer DEFAULT NULL,         -- the type's
    unique_key text DEFAULT NULL,
    unique_while text DEFAULT 'open',         -- or 'queued'
    depends_on uuid[] DEFAULT '{}',
    on_dependency_failure text DEFAULT 'cancel',  -- or 'run'
    batch_id uuid DEFAULT NULL,
    callback jsonb DEFAULT NULL,              -- {"url": "https://…", "on": ["completed", "failed"]}
    repository_id uuid DEFAULT NULL           -- of github.repositories
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = hybridjobs, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    job uuid;
    spec jsonb;
    place integer;
    due timestamptz := coalesce(run_at, now());
    limit_key text;
    unknown uuid;
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
    place := coalesce(priority, (spec->>'priority')::integer, 0);
    IF place NOT BETWEEN -100 AND 100 THEN
        RAISE EXCEPTION 'priority must be from -100 to 100, not %', place
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT isfinite(due) OR due > now() + interval '10 years' THEN
        RAISE EXCEPTION 'run_at must be within ten years, not %', due
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF unique_while NOT IN ('queued', 'open') OR unique_while IS NULL THEN
        RAISE EXCEPTION 'unique_while must be queued or open, not %', unique_while
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF on_dependency_failure NOT IN ('cancel', 'run') OR on_dependency_failure IS NULL THEN
        RAISE EXCEPTION 'on_dependency_failure must be cancel or run, not %', on_dependency_failure
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT is_callback(callback) THEN
        RAISE EXCEPTION 'callback must be {"url": "https://…"}, with "on" an array of some of '
            '"completed", "failed", "cancelled" or without, and nothing else'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF parent_id IS NOT NULL AND NOT pg_has_role(session_user, 'hybridjobs_service', 'member')
          AND NOT is_running(parent_id) THEN
        RAISE EXCEPTION 'job % does not run, so it submits nothing', parent_id
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'parent_id is the job that asks, while its attempt is open';
    END IF;
    SELECT d.id INTO unknown FROM unnest(depends_on) AS d (id)
    WHERE NOT EXISTS (SELECT FROM background_jobs j WHERE j.id = d.id) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'depends_on names job %, which does not exist', unknown
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF spec->'concurrency' ? 'key' OR spec->'throttle' ? 'key' THEN
        limit_key := concurrency_key_at(
            payload::json, coalesce(spec->'concurrency'->>'key', spec->'throttle'->>'key'));
    END IF;
    LOOP
        INSERT INTO background_jobs
            (id, type, payload, source, key, priority, run_at, order_key, max_retries,
             deadline_seconds, parent_id, submitted_by, concurrency_key, unique_key, unique_while,
             batch_id, on_dependency_failure, callback, repository_id, stage)
        VALUES (uuidv7_at(clock_timestamp()), type, payload, 'sql', key, place, due,
                due - make_interval(mins => place),
                coalesce(max_retries, (spec->'retry'->>'limit')::integer, 3),
                coalesce(deadline_seconds, (spec->>'deadlineSeconds')::integer, 900), parent_id,
                session_user, limit_key, unique_key,
                CASE WHEN unique_key IS NOT NULL THEN unique_while END, batch_id,
                CASE WHEN depends_on <> '{}' THEN on_dependency_failure END,
                callbacks_of(spec->'callback', callback), repository_id,
                first_stage(type, limit_key, due, depends_on <> '{}'))
        ON CONFLICT DO NOTHING RETURNING id INTO job;
        EXIT WHEN job IS NOT NULL;
        SELECT j.id INTO job FROM background_jobs j
        WHERE j.type = submit_job.type
          AND (j.source = 'sql' AND j.key = submit_job.key
               OR j.unique_key = submit_job.unique_key AND j.status IN ('queued', 'processing'))
        ORDER BY j.key = submit_job.key DESC NULLS LAST LIMIT 1;
        IF job IS NOT NULL THEN
            RETURN job;
        END IF;
    END LOOP;
    INSERT INTO job_dependencies (job_id, depends_on) SELECT DISTINCT job, d FROM unnest(depends_on) d;
    RETURN job;
END $$;

-- Says which repository a job is about, as soon as its handler knows. False: the job does not run.
CREATE OR REPLACE FUNCTION set_job_repository(job_id uuid, repository_id uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    IF NOT is_running(job_id) THEN
        RETURN false;
    END IF;
    UPDATE background_jobs j SET repository_id = set_job_repository.repository_id
    WHERE j.id = job_id AND j.repository_id IS DISTINCT FROM set_job_repository.repository_id;
    RETURN true;
END $$;

-- Runs a failed or cancelled job once more; exhausted retries get one more. False: nothing to do.
CREATE OR REPLACE FUNCTION retry_failed_job(job_id uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    UPDATE background_jobs j
    SET status = 'queued', retry_count = j.retry_count + 1,
        max_retries = greatest(j.max_retries, j.retry_count + 1),
        run_at = now(), order_key = now() - make_interval(mins => j.priority), stage = 'ready',
        dispatched_at = NULL, cancel_requested_at = NULL, outcome_reason = NULL,
        error_category = NULL, error = NULL, result = NULL,
        started_at = NULL, completed_at = NULL, failed_at = NULL
    WHERE j.id = job_id AND j.status IN ('failed', 'cancelled')
      AND NOT EXISTS (SELECT FROM job_attempts a WHERE a.job_id = j.id AND a.ended_at IS NULL)
      -- Another job has the same unique key by now.
      AND NOT EXISTS (SELECT FROM background_jobs o
                      WHERE o.type = j.type AND o.unique_key = j.unique_key
                        AND o.status IN ('queued', 'processing'));
    RETURN FOUND;
EXCEPTION WHEN unique_violation THEN
    RETURN false;                             -- it came at this moment
END $$;

-- Cancels a queued job at once, and asks a running one to end. The status after it; null: the job
-- is over, or unknown.
CREATE OR REPLACE FUNCTION cancel_job(job_id uuid, reason text DEFAULT 'Cancelled') RETURNS text
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
DECLARE
    found_status text;
BEGIN
    UPDATE background_jobs j
    SET status = CASE WHEN j.stage IS NULL THEN j.status ELSE 'cancelled' END,
        outcome_reason = CASE WHEN j.stage IS NULL THEN j.outcome_reason ELSE reason END,
        stage = NULL, cancel_requested_at = coalesce(j.cancel_requested_at, now())
    WHERE j.id = job_id AND j.status IN ('queued', 'processing')
    RETURNING j.status INTO found_status;
    RETURN found_status;
END $$;

-- No new job of the type starts; what runs goes on. False: there is no such type.
CREATE OR REPLACE FUNCTION pause_type(type text, by text DEFAULT session_user) RETURNS boolean
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    UPDATE job_types t SET paused_at = coalesce(t.paused_at, now()), paused_by = coalesce(t.paused_by, by)
    WHERE t.type = pause_type.type AND t.deleted_at IS NULL;
    RETURN FOUND;
END $$;

CREATE OR REPLACE FUNCTION resume_type(type text) RETURNS boolean
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    UPDATE job_types t SET paused_at = NULL, paused_by = NULL
    WHERE t.type = resume_type.type AND t.deleted_at IS NULL;
    RETURN FOUND;
END $$;

-- No new job of any type starts.
CREATE OR REPLACE FUNCTION pause_queue(by text DEFAULT session_user) RETURNS void
LANGUAGE sql SET search_path = hybridjobs, pg_temp AS $$
    UPDATE queue_settings SET paused_at = coalesce(paused_at, now()), paused_by = coalesce(paused_by, by)
$$;

CREATE OR REPLACE FUNCTION resume_queue() RETURNS void
LANGUAGE sql SET search_path = hybridjobs, pg_temp AS $$
    UPDATE queue_settings SET paused_at = NULL, paused_by = NULL
$$;

-- Runs the jobs of unresolved dead letters once more, the oldest first, `per_second` of them; returns
-- their ids. All conditions that are given must hold.
CREATE OR REPLACE FUNCTION redrive_dead_letters(
    letter uuid DEFAULT NULL,
    only_type text DEFAULT NULL,
    only_category text DEFAULT NULL,
    failed_since timestamptz DEFAULT NULL,
    failed_until timestamptz DEFAULT NULL,
    at_most integer DEFAULT 10000,
    per_second numeric DEFAULT 10,
    by text DEFAULT session_user
) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
DECLARE
    each record;
    letter_row dead_letter_queue;
    place integer := 0;
    due timestamptz;
BEGIN
    IF per_second <= 0 THEN
        RAISE EXCEPTION 'per_second must be above 0' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR each IN
        SELECT d.id, d.original_job_id FROM dead_letter_queue d
        WHERE d.resolved_at IS NULL
          AND (letter IS NULL OR d.id = letter)
          AND (only_type IS NULL OR d.type = only_type)
          AND (only_category IS NULL OR d.error_category = only_category)
          AND (failed_since IS NULL OR d.last_failed_at >= failed_since)
          AND (failed_until IS NULL OR d.last_failed_at < failed_until)
        ORDER BY d.moved_to_dlq_at, d.id LIMIT at_most
    LOOP
        -- The job's row before the letter, as everywhere; what others hold, they are about to run.
        PERFORM FROM background_jobs j WHERE j.id = each.original_job_id FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND
            AND EXISTS (SELECT FROM background_jobs j WHERE j.id = each.original_job_id);
        SELECT d.* INTO letter_row FROM dead_letter_queue d
        WHERE d.id = each.id AND d.resolved_at IS NULL FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        due := now() + place / per_second * interval '1 second';
        -- The row is there unless somebody deleted it by hand.
        INSERT INTO background_jobs (id, type, payload, source, status, submitted_by)
        VALUES (letter_row.original_job_id, letter_row.type, letter_row.payload, 'redrive', 'failed', by)
        ON CONFLICT (id) DO NOTHING;
        CONTINUE WHEN NOT retry_failed_job(letter_row.original_job_id);
        UPDATE background_jobs j
        SET run_at = due, order_key = due - make_interval(mins => j.priority),
            stage = CASE WHEN due > now() THEN 'scheduled' ELSE 'ready' END
        WHERE j.id = letter_row.original_job_id;
        UPDATE dead_letter_queue d
        SET resolved_at = now(), resolved_by = by, resolution_notes = 'redriven' WHERE d.id = letter_row.id;
        place := place + 1;
        RETURN NEXT letter_row.original_job_id;
    END LOOP;
END $$;

-- Closes a dead letter without another run. False: there is none, or it is resolved.
CREATE OR REPLACE FUNCTION resolve_dead_letter(letter uuid, notes text, by text DEFAULT session_user)
RETURNS boolean LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    UPDATE dead_letter_queue d SET resolved_at = now(), resolved_by = by, resolution_notes = notes
    WHERE d.id = letter AND d.resolved_at IS NULL;
    RETURN FOUND;
END $$;

GRANT USAGE ON SCHEMA hybridjobs TO hybridjobs_service, hybridjobs_handlers, hybridjobs_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA hybridjobs TO hybridjobs_service;
GRANT SELECT ON background_jobs, job_attempts, job_types, job_heartbeats, job_dependencies,
    job_batches, queue_settings, schedule_ticks, dead_letter_queue, job_rollups TO hybridjobs_reader;
REVOKE ALL ON FUNCTION uuidv7_at, value_at, joined_values, concurrency_key_at, first_stage,
    is_callback, callbacks_of, is_running, submit_job, set_job_repository, retry_failed_job, cancel_job,
    pause_type, resume_type, pause_queue, resume_queue, redrive_dead_letters, resolve_dead_letter FROM PUBLIC;
GRANT EXECUTE ON FUNCTION uuidv7_at, value_at, joined_values, concurrency_key_at, first_stage,
    is_callback, callbacks_of, is_running, submit_job, set_job_repository, retry_failed_job, cancel_job,
    pause_type, resume_type, pause_queue, resume_queue, redrive_dead_letters, resolve_dead_letter TO hybridjobs_service;
GRANT EXECUTE ON FUNCTION submit_job, set_job_repository TO hybridjobs_handlers;
