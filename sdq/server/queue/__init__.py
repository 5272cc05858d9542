"""The queue: jobs in the table, whose turn it is, to Redis and back, and what was lost."""
