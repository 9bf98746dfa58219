"""`python -m dbbackup.cli`."""

from dbbackup.cli.entry import entry

if __name__ == "__main__":
    entry()
