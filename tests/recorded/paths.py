"""Where the recordings lie."""

from pathlib import Path

FOLDER = Path(__file__).parent
_OCTOKIT = FOLDER / "node_modules" / "@octokit"
EXAMPLES = _OCTOKIT / "webhooks-examples" / "api.github.com" / "index.json"
DESCRIPTION = _OCTOKIT / "openapi" / "generated" / "api.github.com.json"
GRAPHQL_SCHEMA = _OCTOKIT / "graphql-schema" / "schema.graphql"
FIXTURES = _OCTOKIT / "fixtures" / "scenarios" / "api.github.com"
DATA = FOLDER / "data" / "github.json.gz"
SCHEMAS = FOLDER / "data" / "schemas.json"
SERVER = FOLDER / "server"


def require(path: Path) -> Path:
    """`path`, which is there only after the setup."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `python -m tests.recorded setup`")
    return path
