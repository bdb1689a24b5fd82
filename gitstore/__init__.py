"""The version store: names, rules and Git. Independent of Flask and Postgres."""
