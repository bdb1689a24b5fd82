"""Entry points: HTTP, Git over HTTP, command line and worker. This package connects the other packages."""
