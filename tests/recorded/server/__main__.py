"""The server alone, as a pod runs it."""

import argparse
from pathlib import Path

from .app import serve


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers as GitHub's API, for tests.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    serve(options.data, host=options.host, port=options.port)


if __name__ == "__main__":
    main()
