"""Everything that comes in over HTTP: webhooks, the API, workers; and the jobs answered at once."""
