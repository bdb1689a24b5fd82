"""Owners' actions on the objects around their workflows, shared by the API and the pages.

Each action combines the row, the audit log and the log line; its errors have the same text in both.
"""
