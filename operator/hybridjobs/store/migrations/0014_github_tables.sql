-- Reviews, comments and issues beside pull requests; which repositories are tracked, what each run
-- did, and which parts of what are captured. docs/github-schema.md tells where each column is from.

ALTER TABLE github.repositories
    ADD COLUMN total_pull_requests integer;           -- as GitHub counts them

ALTER TABLE github.contributors
    ADD COLUMN github_updated_at timestamptz;

CREATE TABLE github.reviews (
    id              uuid PRIMARY KEY,                 -- UUIDv7, made by us
    github_id       bigint NOT NULL UNIQUE,
    repository_id   uuid NOT NULL REFERENCES github.repositories ON DELETE CASCADE,
    pull_request_id uuid NOT NULL REFERENCES github.pull_requests ON DELETE CASCADE,
    author_id       uuid REFERENCES github.contributors,  -- null: a ghost
    author_login    text,                             -- at the last change
    state           text NOT NULL
        CHECK (state IN ('PENDING', 'APPROVED', 'CHANGES_REQUESTED', 'COMMENTED', 'DISMISSED')),
    body            text,
    submitted_at    timestamptz,                      -- null: pending
    updated_at      timestamptz,                      -- GraphQL alone tells it
    commit_id       text
);
CREATE INDEX reviews_pull_request ON github.reviews (pull_request_id);
CREATE INDEX reviews_submitted ON github.reviews (repository_id, submitted_at DESC);
CREATE INDEX reviews_author ON github.reviews (author_id);

CREATE TABLE github.issues (
    id             uuid PRIMARY KEY,
    github_id      bigint NOT NULL UNIQUE,
    repository_id  uuid NOT NULL REFERENCES github.repositories ON DELETE CASCADE,
    number         integer NOT NULL,
    title          text NOT NULL,
    body           text,
    state          text NOT NULL CHECK (state IN ('open', 'closed')),
    author_id      uuid REFERENCES github.contributors,
    author_login   text,
    closed_by_id   uuid REFERENCES github.contributors,
    labels         jsonb,                             -- [{"name", "color"}]
    assignees      jsonb,                             -- [{"github_id", "login"}]
    milestone      jsonb,                             -- {"number", "title", "state", "due_on"}
    comments_count integer,
    created_at     timestamptz NOT NULL,              -- GitHub's, as are the next two
    updated_at     timestamptz NOT NULL,
    closed_at      timestamptz,
    last_synced_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX issues_number ON github.issues (repository_id, number);
CREATE INDEX issues_updated ON github.issues (repository_id, updated_at DESC);
CREATE INDEX issues_author ON github.issues (author_id);
CREATE INDEX issues_closed_by ON github.issues (closed_by_id) WHERE closed_by_id IS NOT NULL;

-- GitHub numbers the two types apart: an id may be a review comment's and an issue comment's.
CREATE TABLE github.comments (
    id                     uuid PRIMARY KEY,
    github_id              bigint NOT NULL,
    comment_type           text NOT NULL CHECK (comment_type IN ('issue_comment', 'review_comment')),
    repository_id          uuid NOT NULL REFERENCES github.repositories ON DELETE CASCADE,
    pull_request_id        uuid REFERENCES github.pull_requests ON DELETE CASCADE,
    issue_id               uuid REFERENCES github.issues ON DELETE CASCADE,
    commenter_id           uuid REFERENCES github.contributors,
    author_login           text,
    body                   text,
    created_at             timestamptz NOT NULL,      -- GitHub's, as is the next
    updated_at             timestamptz NOT NULL,
    in_reply_to_github_id  bigint,
    in_reply_to_id         uuid REFERENCES github.comments ON DELETE SET NULL,
    review_github_id       bigint,
    position               integer,
    original_position      integer,
    diff_hunk              text,
    path                   text,
    commit_id              text,
    original_commit_id     text,
    UNIQUE (comment_type, github_id),
    CONSTRAINT one_parent CHECK (num_nonnulls(pull_request_id, issue_id) = 1),
    CONSTRAINT only_reviews_have_lines CHECK (comment_type = 'review_comment' OR
        num_nonnulls(in_reply_to_github_id, review_github_id, position, diff_hunk, path) = 0)
);
CREATE INDEX comments_pull_request ON github.comments (pull_request_id)
    WHERE pull_request_id IS NOT NULL;
CREATE INDEX comments_issue ON github.comments (issue_id) WHERE issue_id IS NOT NULL;
CREATE INDEX comments_created ON github.comments (repository_id, created_at DESC);
CREATE INDEX comments_commenter ON github.comments (commenter_id);
CREATE INDEX comments_in_reply_to ON github.comments (in_reply_to_id)
    WHERE in_reply_to_id IS NOT NULL;
-- Replies that came before what they reply to.
CREATE INDEX comments_unresolved ON github.comments (in_reply_to_github_id)
    WHERE in_reply_to_github_id IS NOT NULL AND in_reply_to_id IS NULL;

CREATE TABLE github.tracked_repositories (
    id                   uuid PRIMARY KEY,
    repository_id        uuid NOT NULL UNIQUE REFERENCES github.repositories ON DELETE CASCADE,
    tracking_enabled     boolean NOT NULL DEFAULT true,
    sync_frequency_hours integer NOT NULL DEFAULT 24 CHECK (sync_frequency_hours > 0),
    include_forks        boolean NOT NULL DEFAULT false,
    include_bots         boolean NOT NULL DEFAULT true,
    priority             text NOT NULL DEFAULT 'low' CHECK (priority IN ('high', 'medium', 'low')),
    size                 text CHECK (size IN ('small', 'medium', 'large', 'xl')),
    metrics              jsonb,                       -- what the size was found by
    size_calculated_at   timestamptz,                 -- null: not classified yet
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tracked_repositories_classified
    ON github.tracked_repositories (size_calculated_at NULLS FIRST) WHERE tracking_enabled;

-- One row a job: what it did, over all its attempts.
CREATE TABLE github.sync_logs (
    id                    uuid PRIMARY KEY,
    job_id                uuid NOT NULL UNIQUE,       -- no foreign key: the queue forgets sooner
    sync_type             text NOT NULL,              -- the job's type
    repository_id         uuid REFERENCES github.repositories ON DELETE CASCADE,
    status                text NOT NULL DEFAULT 'started'
        CHECK (status IN ('started', 'completed', 'failed', 'cancelled')),
    started_at            timestamptz NOT NULL DEFAULT now(),
    completed_at          timestamptz,
    records_processed     integer NOT NULL DEFAULT 0,
    records_inserted      integer NOT NULL DEFAULT 0,
    records_updated       integer NOT NULL DEFAULT 0,
    records_failed        integer NOT NULL DEFAULT 0,
    github_api_calls_used integer NOT NULL DEFAULT 0,
    rate_limit_remaining  integer,                    -- after the last call
    error_message         text,
    metadata              jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT ended_has_time CHECK ((status = 'started') = (completed_at IS NULL))
);
CREATE INDEX sync_logs_repository ON github.sync_logs (repository_id, started_at DESC);
CREATE INDEX sync_logs_started ON github.sync_logs (started_at DESC);

-- Which parts were asked for and captured, and for which updated_at of what they belong to: a part
-- is due while that is newer. requested_for keeps a second run from asking for what is on its way.
CREATE TABLE github.pull_request_captures (
    pull_request_id uuid NOT NULL REFERENCES github.pull_requests ON DELETE CASCADE,
    part            text NOT NULL CHECK (part IN ('details', 'reviews', 'comments')),
    requested_for   timestamptz,
    requested_at    timestamptz,
    captured_for    timestamptz,
    captured_at     timestamptz,
    PRIMARY KEY (pull_request_id, part)
) WITH (fillfactor = 85);
CREATE TABLE github.issue_captures (
    issue_id        uuid NOT NULL REFERENCES github.issues ON DELETE CASCADE,
    part            text NOT NULL CHECK (part = 'comments'),
    requested_for   timestamptz,
    requested_at    timestamptz,
    captured_for    timestamptz,
    captured_at     timestamptz,
    PRIMARY KEY (issue_id, part)
) WITH (fillfactor = 85);

GRANT SELECT, INSERT, UPDATE, DELETE ON
    github.reviews, github.issues, github.comments, github.tracked_repositories, github.sync_logs,
    github.pull_request_captures, github.issue_captures TO hybridjobs_handlers;
GRANT SELECT ON
    github.reviews, github.issues, github.comments, github.tracked_repositories, github.sync_logs,
    github.pull_request_captures, github.issue_captures TO hybridjobs_reader;
