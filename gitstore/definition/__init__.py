"""Workflow definitions: parsing under limits, rules, digest, and writing."""
