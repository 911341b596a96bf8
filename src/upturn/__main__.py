"""python -m upturn: the command line."""

from upturn.cli import main

if __name__ == "__main__":
    main()
