-- The service deletes old rows of github.sync_logs, as it does those of the queue.

GRANT USAGE ON SCHEMA github TO hybridjobs_service;
GRANT SELECT, DELETE ON github.sync_logs TO hybridjobs_service;
