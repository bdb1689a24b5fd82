"""The HTTP API: a module for each noun, with its schemas beside its views. Nothing else imports it."""
