"""`python -m carto_core VERB`."""

from carto_core.cli import main

if __name__ == "__main__":
    main()
