"""The processes of `gitstore serve`: supervisor, web server, embedded Postgres, start-up."""
