"""Everything that is SQL: the queue in Postgres, its schema and its guards."""
