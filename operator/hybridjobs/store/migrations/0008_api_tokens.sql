-- The API's bearer tokens. A token is 256 random bits, so its plain sha256 gives nothing away and
-- serves as the key to look it up by; a slow, salted hash is for secrets that people think of.
CREATE TABLE api_tokens (
    id           uuid PRIMARY KEY,
    name         text NOT NULL,               -- who holds it: background_jobs.submitted_by
    scope        text NOT NULL CHECK (scope IN ('read', 'submit', 'operate')),
    digest       bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    hint         text NOT NULL,               -- how it begins
    created_at   timestamptz NOT NULL DEFAULT now(),
    created_by   text NOT NULL,
    expires_at   timestamptz,                 -- null: never
    last_used_at timestamptz,                 -- to within some minutes
    revoked_at   timestamptz,
    revoked_by   text
);
GRANT SELECT, INSERT, UPDATE, DELETE ON api_tokens TO hybridjobs_service;
