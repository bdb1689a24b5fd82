"""Another repository: fetch from it, push to it, and import what it holds."""
