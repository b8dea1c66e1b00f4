"""`python -m tests.conformance.inngest`: install Inngest's JavaScript SDK, unless it is there."""

from pathlib import Path

from tests.recorded.packages import install

if __name__ == "__main__":
    install(Path(__file__).parent)
