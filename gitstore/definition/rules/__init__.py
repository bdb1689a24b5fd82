"""The rules on a workflow's graph, and which parts of a definition have meaning."""
