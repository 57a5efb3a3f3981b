"""`python -m zccr_stream` is `zccr-stream`."""

from zccr_stream.cli import main

if __name__ == "__main__":
    main()
