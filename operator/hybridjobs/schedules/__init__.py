"""Ticks of HybridJobSchedules become jobs, one a tick.

`known` holds the schedules as the cluster shows them. `ticker` takes each tick that is due, asks
the pure `ticks` what becomes of it, and commits that together with the job; it needs the database
alone. `reporter` reads the schedules and writes their statuses; it needs the API server alone.
"""
