"""`python -m tests.conformance`: install the senders, unless they are there."""

from pathlib import Path

from tests.recorded.packages import install

if __name__ == "__main__":
    install(Path(__file__).parent)
