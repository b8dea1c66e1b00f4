-- What follows from a row's change, whoever makes it: this program, an older version of it, or a
-- person with psql. None of these functions is called for a job that just runs and completes.

-- The stage follows from the rest wherever a statement does not care for it.
CREATE OR REPLACE FUNCTION settle_stage() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    NEW.stage := CASE WHEN NEW.status <> 'queued' OR NEW.dispatched_at IS NOT NULL THEN NULL
                      WHEN NEW.run_at > now() THEN 'scheduled'
                      ELSE 'ready' END;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER settle_stage BEFORE INSERT OR UPDATE ON background_jobs FOR EACH ROW
WHEN ((NEW.stage IS NOT NULL) IS DISTINCT FROM (NEW.status = 'queued' AND NEW.dispatched_at IS NULL)
      OR (NEW.stage = 'ready' AND NEW.run_at > now()))
EXECUTE FUNCTION settle_stage();

-- A parked row is found by its type and key, and runs whenever they have room: one that gets others,
-- or a time to come, goes back into line.
CREATE OR REPLACE TRIGGER settle_parked BEFORE UPDATE OF type, concurrency_key, run_at ON background_jobs
FOR EACH ROW
WHEN (OLD.stage = 'parked' AND NEW.stage = 'parked'
      AND ((NEW.type, NEW.concurrency_key) IS DISTINCT FROM (OLD.type, OLD.concurrency_key)
           OR NEW.run_at > now()))
EXECUTE FUNCTION settle_stage();

-- Statements that are sent often say themselves in which transaction they change a job; this does for
-- all others. By its name it comes last.
CREATE OR REPLACE FUNCTION stamp_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    NEW.changed_in := pg_current_xact_id();
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER stamp_change BEFORE UPDATE ON background_jobs FOR EACH ROW
WHEN (NEW.changed_in = OLD.changed_in
      AND (NEW.status, NEW.stage, NEW.attempt, NEW.run_at, NEW.outcome_reason)
          IS DISTINCT FROM (OLD.status, OLD.stage, OLD.attempt, OLD.run_at, OLD.outcome_reason))
EXECUTE FUNCTION stamp_change();

-- UPDATE background_jobs SET status = 'failed' …, by hand, counts: the attempt is closed with it,
-- and the sweep ends its pod. Ours clear dispatched_at when they end a job, and say when it was.
CREATE OR REPLACE FUNCTION end_by_hand() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    UPDATE job_attempts a
    SET ended_at = greatest(clock_timestamp(), a.claimed_at, a.started_at),
        outcome = CASE NEW.status WHEN 'completed' THEN 'succeeded' ELSE NEW.status END,
        reason = 'SetByHand', spent_retry = false,
        message = coalesce(NEW.error, format('set to %s by %s', NEW.status, session_user)),
        error_category = CASE WHEN NEW.status = 'failed' THEN coalesce(NEW.error_category, 'unknown') END
    WHERE a.job_id = NEW.id AND a.ended_at IS NULL;
    IF FOUND THEN
        NEW.outcome_reason := 'SetByHand';
    END IF;
    NEW.dispatched_at := NULL;
    IF NEW.status = 'completed' THEN
        NEW.completed_at := coalesce(NEW.completed_at, now());
        NEW.started_at := coalesce(NEW.started_at, NEW.completed_at);
    ELSIF NEW.status = 'failed' THEN
        NEW.failed_at := coalesce(NEW.failed_at, now());
        NEW.error_category := coalesce(NEW.error_category, 'unknown');
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER end_by_hand BEFORE UPDATE OF status ON background_jobs FOR EACH ROW
WHEN (NEW.status IN ('completed', 'failed', 'cancelled') AND OLD.status <> NEW.status
      AND (NEW.dispatched_at IS NOT NULL
           OR NEW.status = 'completed' AND (NEW.completed_at IS NULL OR NEW.started_at IS NULL)
           OR NEW.status = 'failed' AND NEW.failed_at IS NULL))
EXECUTE FUNCTION end_by_hand();

-- … SET status = 'queued' on a job that is over is a retry. One that runs is taken from who runs it,
-- as is one whose claim somebody takes back: a job never has two open attempts. Ours have closed
-- theirs, and say which transaction changes the job.
CREATE OR REPLACE FUNCTION requeue_by_hand() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    UPDATE job_attempts a
    SET ended_at = greatest(clock_timestamp(), a.claimed_at, a.started_at), outcome = 'cancelled',
        reason = 'SetByHand', spent_retry = false,
        message = format('set to queued by %s', session_user)
    WHERE a.job_id = NEW.id AND a.ended_at IS NULL;
    NEW.dispatched_at := NULL;
    NEW.cancel_requested_at := NULL;
    NEW.started_at := NULL;
    NEW.completed_at := NULL;
    NEW.failed_at := NULL;
    NEW.stage := CASE WHEN NEW.run_at > now() THEN 'scheduled' ELSE 'ready' END;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER requeue_by_hand BEFORE UPDATE OF status, dispatched_at ON background_jobs
FOR EACH ROW
WHEN (NEW.status = 'queued'
      AND (OLD.status IN ('completed', 'failed', 'cancelled')
           AND (NEW.cancel_requested_at IS NOT NULL OR NEW.started_at IS NOT NULL
                OR NEW.completed_at IS NOT NULL OR NEW.failed_at IS NOT NULL
                OR NEW.dispatched_at IS NOT NULL)
           OR NEW.changed_in = OLD.changed_in
           AND (OLD.status = 'processing'
                OR OLD.dispatched_at IS NOT NULL AND NEW.dispatched_at IS NULL)))
EXECUTE FUNCTION requeue_by_hand();

-- Attempts that were are counted for good, also where somebody sets their number back to begin anew.
CREATE OR REPLACE FUNCTION keep_attempt() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    NEW.attempt := OLD.attempt;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER keep_attempt BEFORE UPDATE OF attempt ON background_jobs FOR EACH ROW
WHEN (NEW.attempt < OLD.attempt)
EXECUTE FUNCTION keep_attempt();

-- Whatever cancels a job, it says when: retention counts from then.
CREATE OR REPLACE FUNCTION date_cancel() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    NEW.cancel_requested_at := now();
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER date_cancel BEFORE UPDATE OF status ON background_jobs FOR EACH ROW
WHEN (NEW.status = 'cancelled' AND OLD.status <> 'cancelled' AND NEW.cancel_requested_at IS NULL)
EXECUTE FUNCTION date_cancel();

-- A job that fails for good has its dead letter from the same commit on.
CREATE OR REPLACE FUNCTION write_dead_letter() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    INSERT INTO dead_letter_queue
        (id, original_job_id, type, payload, error_history, failure_count, error_category,
         first_failed_at, last_failed_at)
    SELECT uuidv7_at(clock_timestamp()), NEW.id, NEW.type, NEW.payload,
           coalesce(jsonb_agg(jsonb_build_object(
               'attempt', a.attempt, 'outcome', a.outcome, 'reason', a.reason,
               'category', a.error_category, 'message', a.message, 'endedAt', a.ended_at)
               ORDER BY a.attempt), '[]'),
           count(*), coalesce(NEW.error_category, 'unknown'),
           coalesce(min(a.ended_at), NEW.failed_at, now()), coalesce(max(a.ended_at), NEW.failed_at, now())
    FROM job_attempts a
    WHERE a.job_id = NEW.id AND a.outcome NOT IN ('succeeded', 'over_budget')
    ON CONFLICT (original_job_id) WHERE resolved_at IS NULL DO NOTHING;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER write_dead_letter AFTER UPDATE OF status ON background_jobs FOR EACH ROW
WHEN (NEW.status = 'failed' AND OLD.status <> 'failed')
EXECUTE FUNCTION write_dead_letter();

CREATE OR REPLACE FUNCTION resolve_retried() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    UPDATE dead_letter_queue d
    SET resolved_at = now(), resolved_by = session_user, resolution_notes = 'retried'
    WHERE d.original_job_id = NEW.id AND d.resolved_at IS NULL;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER resolve_retried AFTER UPDATE OF status ON background_jobs FOR EACH ROW
WHEN (OLD.status = 'failed' AND NEW.status <> 'failed')
EXECUTE FUNCTION resolve_retried();

-- What a job that ends has to tell goes into its callbacks' line in the same commit: never lost, and
-- once for each end. Whatever stands in the column, this must not fail: the job ends with it.
CREATE OR REPLACE FUNCTION write_callbacks() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
DECLARE
    iso CONSTANT text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
    omitted boolean := coalesce(octet_length(NEW.result::text) > 65536, false);
BEGIN
    INSERT INTO callback_deliveries (id, job_id, type, event, url, secret, body)
    SELECT uuidv7_at(clock_timestamp()), NEW.id, NEW.type, 'job.' || NEW.status, target->>'url',
           coalesce(target->>'secret', 'default'),
           json_build_object(
               'type', 'job.' || NEW.status,
               'timestamp', to_char(clock_timestamp() AT TIME ZONE 'UTC', iso),
               'data', json_build_object(
                   'id', NEW.id, 'type', NEW.type, 'status', NEW.status,
                   'result', CASE WHEN NOT omitted THEN NEW.result END,
                   'resultOmitted', omitted,
                   'error', left(NEW.error, 4096), 'reason', NEW.outcome_reason,
                   'errorCategory', NEW.error_category, 'attempts', NEW.attempt,
                   'durationMs', NEW.duration_ms, 'key', NEW.key, 'source', NEW.source,
                   'batchId', NEW.batch_id, 'parentId', NEW.parent_id, 'schedule', NEW.schedule,
                   'createdAt', to_char(NEW.created_at AT TIME ZONE 'UTC', iso),
                   'startedAt', to_char(NEW.started_at AT TIME ZONE 'UTC', iso),
                   'url', '/api/jobs/' || NEW.id))::text
    FROM jsonb_path_query(
        NEW.callback,
        '$[*] ? (@.url.type() == "string" && (!exists (@.on) || @.on[*] == $status))',
        jsonb_build_object('status', NEW.status)) AS target;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER write_callbacks AFTER UPDATE OF status ON background_jobs FOR EACH ROW
WHEN (NEW.callback IS NOT NULL AND NEW.status IN ('completed', 'failed', 'cancelled')
      AND OLD.status <> NEW.status)
EXECUTE FUNCTION write_callbacks();

-- Who waited for an ended job goes on, or is cancelled with it: at most so many, and not those whose
-- rows others hold. Returns how many. That is the claim's work (link_dependencies), since nobody
-- starts before the next claim anyway: an outcome writes its own row, however many wait for it and
-- however long their chain, and waits for none of theirs.
CREATE OR REPLACE FUNCTION release_dependents(ended uuid, succeeded boolean, at_most integer)
RETURNS integer LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
DECLARE
    held uuid[];
BEGIN
    held := ARRAY(SELECT j.id FROM job_dependencies d JOIN background_jobs j ON j.id = d.job_id
                  WHERE d.depends_on = ended
                  ORDER BY j.id LIMIT at_most FOR UPDATE OF j SKIP LOCKED);
    IF NOT succeeded THEN
        UPDATE background_jobs j
        SET status = 'cancelled', stage = NULL, outcome_reason = 'DependencyFailed',
            error = format('job %s, which it waited for, did not complete', ended)
        WHERE j.id = ANY(held) AND j.stage = 'blocked' AND j.on_dependency_failure = 'cancel';
    END IF;
    DELETE FROM job_dependencies d WHERE d.depends_on = ended AND d.job_id = ANY(held);
    UPDATE background_jobs j
    SET stage = CASE WHEN j.run_at > now() THEN 'scheduled' ELSE 'ready' END
    WHERE j.id = ANY(held) AND j.stage = 'blocked'
      AND NOT EXISTS (SELECT FROM job_dependencies d WHERE d.job_id = j.id);
    RETURN cardinality(held);
END $$;

-- What waits for a row that is deleted has to be told by that deletion: nothing of it remains.
CREATE OR REPLACE FUNCTION release_dependents_of_deleted() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    PERFORM FROM background_jobs j
    WHERE j.id IN (SELECT d.job_id FROM job_dependencies d WHERE d.depends_on = OLD.id)
    ORDER BY j.id FOR UPDATE;
    PERFORM release_dependents(OLD.id, OLD.status = 'completed', NULL);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER release_dependents_of_deleted AFTER DELETE ON background_jobs FOR EACH ROW
WHEN (OLD.has_dependents)
EXECUTE FUNCTION release_dependents_of_deleted();

-- A job that leaves before those it waits for takes its side of the matter with it.
CREATE OR REPLACE FUNCTION forget_dependencies() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    DELETE FROM job_dependencies d WHERE d.job_id = NEW.id;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER forget_dependencies AFTER UPDATE OF status ON background_jobs FOR EACH ROW
WHEN (OLD.stage = 'blocked' AND NEW.status <> 'queued')
EXECUTE FUNCTION forget_dependencies();

-- New dependencies are made known to the jobs waited for, and those of jobs that have ended are met,
-- or failed. Does about `at_most` of each, and leaves rows that others hold for the next call: it
-- never waits. Returns how many it did.
CREATE OR REPLACE FUNCTION link_dependencies(at_most integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
DECLARE
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    held uuid[];
    gone uuid;
    ended record;
    last uuid := nobody;
    since integer := 0;                       -- how many this round through the ended released
    released integer := 0;
    done integer;
BEGIN
    held := ARRAY(SELECT j.id FROM background_jobs j
                  WHERE j.id IN (SELECT d.depends_on FROM job_dependencies d WHERE NOT d.linked
                                 ORDER BY d.job_id LIMIT at_most)
                  ORDER BY j.id FOR NO KEY UPDATE SKIP LOCKED);
    UPDATE background_jobs j SET has_dependents = true WHERE j.id = ANY(held) AND NOT j.has_dependents;
    WITH new AS (
        SELECT d.job_id, d.depends_on FROM job_dependencies d
        WHERE NOT d.linked AND d.depends_on = ANY(held) FOR UPDATE SKIP LOCKED
    )
    UPDATE job_dependencies d SET linked = true FROM new
    WHERE d.job_id = new.job_id AND d.depends_on = new.depends_on;
    GET DIAGNOSTICS done = ROW_COUNT;
    -- Gone by retention, which is a long time after their end.
    FOR gone IN
        SELECT DISTINCT d.depends_on FROM job_dependencies d
        WHERE NOT d.linked
          AND NOT EXISTS (SELECT FROM background_jobs j WHERE j.id = d.depends_on)
        ORDER BY 1
    LOOP
        EXIT WHEN released >= at_most;
        released := released + release_dependents(gone, true, at_most - released);
    END LOOP;
    -- In one round from the lowest id to the highest, and again while that releases any: who is
    -- cancelled here has ended too.
    WHILE released < at_most LOOP
        SELECT j.id, j.status INTO ended FROM background_jobs j
        WHERE j.has_dependents AND j.status IN ('completed', 'failed', 'cancelled') AND j.id > last
        ORDER BY j.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            EXIT WHEN released = since;
            last := nobody;
            since := released;
            CONTINUE;
        END IF;
        last := ended.id;
        released := released
            + release_dependents(ended.id, ended.status = 'completed', at_most - released);
        UPDATE background_jobs j SET has_dependents = false
        WHERE j.id = ended.id
          AND NOT EXISTS (SELECT FROM job_dependencies d WHERE d.depends_on = j.id);
    END LOOP;
    RETURN done + released;
END $$;

REVOKE ALL ON FUNCTION settle_stage, stamp_change, end_by_hand, requeue_by_hand, keep_attempt,
    date_cancel, write_dead_letter, resolve_retried, write_callbacks, release_dependents,
    release_dependents_of_deleted, forget_dependencies, link_dependencies FROM PUBLIC;
GRANT EXECUTE ON FUNCTION release_dependents, link_dependencies TO hybridjobs_service;
