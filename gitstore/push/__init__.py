"""git push: reading the request, judging it in slices, and the report."""
