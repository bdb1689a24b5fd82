"""DEFINITION's rules: what a workflow's graph must be, and what of it has meaning."""
