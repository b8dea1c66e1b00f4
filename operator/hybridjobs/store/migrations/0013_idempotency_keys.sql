-- An Idempotency-Key is one request's, whatever type its job has: of requests at the same moment that
-- name different types, too, one makes a job. Keys that made several before stay as they are.
UPDATE background_jobs job SET request_digest = NULL
WHERE request_digest IS NOT NULL
  AND EXISTS (SELECT FROM background_jobs earlier
              WHERE earlier.source = job.source AND earlier.key = job.key AND earlier.id < job.id
                AND earlier.request_digest IS NOT NULL);
CREATE UNIQUE INDEX background_jobs_request ON background_jobs (source, key)
    WHERE request_digest IS NOT NULL;
