"""The handlers that come with HybridJobs."""
