"""`python -m dbbackup.cli`."""

from dbbackup.cli.app import entry

if __name__ == "__main__":
    entry()
