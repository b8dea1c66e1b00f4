-- What the GitHub client shares between pods. Tokens are known by their SHA-256; an installation of
-- an App by that of its ids, as its limits are the installation's.

CREATE TABLE github.rate_limits (
    token_sha256  bytea NOT NULL CHECK (octet_length(token_sha256) = 32),
    resource      text NOT NULL,                -- 'core', 'graphql', …; '*': secondary limits
    request_limit integer NOT NULL,             -- requests, or points, in a window
    remaining     integer NOT NULL,
    in_flight     integer NOT NULL DEFAULT 0,   -- taken by running requests, when little remains
    reset_at      timestamptz NOT NULL,         -- the window's end
    blocked_until timestamptz,
    observed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (token_sha256, resource)
) WITH (fillfactor = 50);

-- Answers to be asked for conditionally.
CREATE TABLE github.responses (
    id      bigint GENERATED ALWAYS AS IDENTITY,
    scope   bytea NOT NULL,                     -- the token's SHA-256
    url     text NOT NULL,                      -- path and query
    headers text NOT NULL,                      -- JSON: ETag, Last-Modified, Link
    body    bytea STORAGE EXTERNAL NOT NULL,    -- by zlib
    used_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, url)
);
CREATE INDEX responses_used ON github.responses (used_at);

CREATE TABLE github.installation_tokens (
    app_id     text NOT NULL,
    owner      text NOT NULL,                   -- in lower case
    sealed     bytea NOT NULL,                  -- encrypted with a key made of the App's
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (app_id, owner)
);

GRANT SELECT, INSERT, UPDATE, DELETE
    ON github.rate_limits, github.responses, github.installation_tokens TO hybridjobs_handlers;
GRANT SELECT ON github.rate_limits TO hybridjobs_reader;
