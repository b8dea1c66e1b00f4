-- What the GitHub handlers keep. Rows are known by GitHub's ids, which stay when names change; a
-- name may pass from one account or repository to another, so names are not unique.

CREATE SCHEMA IF NOT EXISTS github;

CREATE TABLE github.repositories (
    id                uuid PRIMARY KEY,       -- UUIDv7, made by us
    github_id         bigint NOT NULL UNIQUE,
    full_name         text NOT NULL,
    owner             text NOT NULL,
    name              text NOT NULL,
    description       text,
    homepage          text,
    language          text,
    stargazers_count  integer,
    watchers_count    integer,
    forks_count       integer,
    open_issues_count integer,
    size              integer,                -- KiB
    default_branch    text,
    is_fork           boolean,
    is_archived       boolean,
    is_disabled       boolean,
    is_private        boolean,
    is_template       boolean,
    has_issues        boolean,
    has_projects      boolean,
    has_wiki          boolean,
    has_pages         boolean,
    has_downloads     boolean,
    has_discussions   boolean,
    license           text,                   -- SPDX identifier
    topics            text[],
    avatar_url        text,                   -- the owner's
    github_created_at timestamptz,
    github_updated_at timestamptz,
    github_pushed_at  timestamptz,
    first_tracked_at  timestamptz NOT NULL DEFAULT now(),
    last_updated_at   timestamptz NOT NULL DEFAULT now(),
    is_active         boolean NOT NULL DEFAULT true,
    sync_status       text NOT NULL DEFAULT 'idle'
        CHECK (sync_status IN ('idle', 'syncing', 'completed', 'failed', 'partial')),
    last_synced_at    timestamptz
);
CREATE INDEX repositories_full_name ON github.repositories (lower(full_name));

CREATE TABLE github.contributors (
    id                uuid PRIMARY KEY,
    github_id         bigint NOT NULL UNIQUE,
    username          text NOT NULL,          -- 'octocat', 'renovate[bot]'
    display_name      text,
    avatar_url        text,
    profile_url       text,
    email             text,
    company           text,
    location          text,
    bio               text,
    blog              text,
    public_repos      integer,
    public_gists      integer,
    followers         integer,
    following         integer,
    github_created_at timestamptz,
    is_bot            boolean NOT NULL,
    is_active         boolean NOT NULL DEFAULT true,
    first_seen_at     timestamptz NOT NULL DEFAULT now(),
    last_updated_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX contributors_username ON github.contributors (lower(username));

CREATE TABLE github.pull_requests (
    id                   uuid PRIMARY KEY,
    github_id            bigint NOT NULL UNIQUE,
    repository_id        uuid NOT NULL REFERENCES github.repositories ON DELETE CASCADE,
    repository_full_name text NOT NULL,       -- at the last change
    number               integer NOT NULL,
    title                text NOT NULL,
    body                 text,
    state                text NOT NULL CHECK (state IN ('open', 'closed', 'merged')),
    author_id            uuid REFERENCES github.contributors,  -- null: a ghost
    author_login         text,                -- at the last change
    assignee_id          uuid REFERENCES github.contributors,
    merged_by_id         uuid REFERENCES github.contributors,
    base_branch          text NOT NULL,
    head_branch          text NOT NULL,
    draft                boolean,
    mergeable            boolean,
    mergeable_state      text,
    merged               boolean NOT NULL,
    created_at           timestamptz NOT NULL,  -- GitHub's, as are the next three
    updated_at           timestamptz NOT NULL,
    closed_at            timestamptz,
    merged_at            timestamptz,
    additions            integer,
    deletions            integer,
    changed_files        integer,
    commits              integer,
    html_url             text,
    diff_url             text,
    patch_url            text,
    last_synced_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX pull_requests_number ON github.pull_requests (repository_id, number);
CREATE INDEX pull_requests_updated ON github.pull_requests (repository_id, updated_at DESC);
CREATE INDEX pull_requests_author ON github.pull_requests (author_id);
CREATE INDEX pull_requests_assignee ON github.pull_requests (assignee_id)
    WHERE assignee_id IS NOT NULL;
CREATE INDEX pull_requests_merged_by ON github.pull_requests (merged_by_id)
    WHERE merged_by_id IS NOT NULL;

GRANT USAGE ON SCHEMA github TO hybridjobs_handlers, hybridjobs_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA github TO hybridjobs_handlers;
GRANT SELECT ON ALL TABLES IN SCHEMA github TO hybridjobs_reader;
