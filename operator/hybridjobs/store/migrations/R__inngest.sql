-- Whoever ends a job for which a run of Inngest waits, the run is told: by the ingress, from what
-- this writes with the end itself.
CREATE OR REPLACE FUNCTION note_inngest_ending() RETURNS trigger
LANGUAGE plpgsql SET search_path = hybridjobs, pg_temp AS $$
BEGIN
    INSERT INTO inngest_endings (job_id) VALUES (NEW.id)
    ON CONFLICT (job_id) DO UPDATE SET due_at = now(), sends = 0;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER note_inngest_ending AFTER UPDATE OF status ON background_jobs FOR EACH ROW
WHEN (NEW.inngest_run_id IS NOT NULL AND NEW.status IN ('completed', 'failed', 'cancelled')
      AND OLD.status <> NEW.status)
EXECUTE FUNCTION note_inngest_ending();

REVOKE ALL ON FUNCTION note_inngest_ending FROM PUBLIC;
