"""What owners do to what stands beside their workflows, by HTTP and at the page alike.

Each act is the row, the audit log and the line of the log, together; what it raises is said in the same
words by both doors.
"""
