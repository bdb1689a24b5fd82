"""Consistency of rows and Git: verify, rebuild, repair."""
