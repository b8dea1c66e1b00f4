-- When each hook's deliveries are looked through next: once a period, however many replicas there are.
CREATE TABLE github_looks (
    hook    text PRIMARY KEY,
    next_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON github_looks TO hybridjobs_service;
GRANT SELECT ON github_looks TO hybridjobs_reader;

-- Every try is a new delivery to GitHub, so that its age does not end the asking.
ALTER TABLE github_redeliveries ADD COLUMN first_asked_at timestamptz NOT NULL DEFAULT now();
