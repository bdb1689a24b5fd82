"""Every door: HTTP, git over HTTP, the command line, the worker. Puts the other packages together."""
