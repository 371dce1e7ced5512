"""`python -m xentbench`: the command line where no console script is on the path."""

from xentbench.cli import main

if __name__ == "__main__":
    main()
