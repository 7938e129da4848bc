"""``python -m mipp``: the ``mipp`` command."""

from .cli import main

if __name__ == "__main__":
    main()
