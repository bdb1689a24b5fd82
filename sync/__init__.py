"""Mirror of Git in Postgres: the mirror, its database and the queries. Imports only `gitstore`."""
