"""The client's side: one connection to a server, and the library for scripts on top of it."""
