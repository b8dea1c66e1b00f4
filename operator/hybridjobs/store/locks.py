"""How statements wait for rows: a job's before its attempt's, several jobs' by their ids.

Whoever keeps rows locked, as an open session of psql may, holds up those who need them, for a
second (RowLocked), and nobody else.
"""

# For the FROM of a statement that may have to wait. It holds until the end of the transaction.
PATIENCE = "(SELECT set_config('lock_timeout', '1s', true)) AS patience"
LOCKED_JOB = f"""
    SELECT id FROM hybridjobs.background_jobs CROSS JOIN {PATIENCE}
    WHERE id = %(job_id)s FOR UPDATE OF background_jobs
"""  # noqa: S608 - of constants
