"""The rules on a workflow's nodes, edges and graph."""
