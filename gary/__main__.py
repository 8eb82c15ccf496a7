"""``python -m gary`` is ``gary``."""

from gary.cli import main

if __name__ == "__main__":
    main()
