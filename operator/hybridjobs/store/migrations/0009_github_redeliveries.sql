-- What GitHub was asked to deliver again: each delivery by one process at a time, and less often each
-- time that it failed.
CREATE TABLE github_redeliveries (
    hook     text NOT NULL,
    guid     text NOT NULL,                   -- X-GitHub-Delivery
    times    integer NOT NULL DEFAULT 1,
    asked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (hook, guid)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON github_redeliveries TO hybridjobs_service;
GRANT SELECT ON github_redeliveries TO hybridjobs_reader;
