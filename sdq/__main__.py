"""``python -m sdq``."""

from sdq.cli.main import run

if __name__ == "__main__":
    run()
