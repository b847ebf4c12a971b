"""`python -m recall`, as torchrun starts it."""

from recall.cli import main

if __name__ == "__main__":
    main()
