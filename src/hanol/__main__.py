"""`python -m hanol`: the command line, for launchers that start modules."""

from hanol.cli import main

if __name__ == "__main__":
    main()
