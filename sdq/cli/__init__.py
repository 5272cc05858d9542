"""The command line: one module a noun, registered in `sdq.cli.main`."""
