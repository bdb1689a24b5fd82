"""Actions, each a function with plain arguments that the API, the pages and the command line call.

An action checks its input, writes, and records itself in the audit log and the log. It needs no Flask.
"""
