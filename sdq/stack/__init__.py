"""Starts and watches the parts of sdq on one machine: Redis, server, worker."""
