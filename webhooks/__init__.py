"""Webhooks in and out: signatures, deliveries to subscribers, following another repository."""
