"""Git to Postgres: the mirror, its database and what is read from it. Imports only `gitstore`."""
