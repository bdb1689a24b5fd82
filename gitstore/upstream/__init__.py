"""Upstream repositories: fetch from them, push to them, and import their refs."""
