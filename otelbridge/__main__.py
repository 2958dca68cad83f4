"""`python -m otelbridge` is the command `otelbridge`."""

from otelbridge.cli import main

if __name__ == "__main__":
    main()
