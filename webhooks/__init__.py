"""Inbound and outbound webhooks: signatures, deliveries to subscribers, and synchronization of sources."""
