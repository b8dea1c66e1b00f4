-- Who begins a new window of a rate limit is alone until then.
ALTER TABLE github.rate_limits ADD COLUMN opening_until timestamptz;
