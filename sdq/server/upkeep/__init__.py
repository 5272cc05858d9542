"""Damage found and mended, and backups; beside a running server or without one."""
