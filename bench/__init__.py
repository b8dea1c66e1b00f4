"""Measurements: each prints its figures last, `name value` a line, and keeps them in results/."""
