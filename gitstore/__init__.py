"""The store: names, rules, Git. Knows neither Flask nor Postgres."""
