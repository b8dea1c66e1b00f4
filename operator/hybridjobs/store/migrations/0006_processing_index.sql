-- What runs now is a few rows of millions: for the listings of it, and for those that should not be.
CREATE INDEX background_jobs_processing ON background_jobs (id) WHERE status = 'processing';
