"""What GitHub says of a repository, and what follows where it says that there is none."""

from hybridjobs.handlers.github.client import (
    GitHubClient,
    GoneError,
    LegalError,
    NotFoundError,
    Object,
)
from hybridjobs.handlers.github.tables import GitHubTables


async def ask_repository(
    github: GitHubClient, tables: GitHubTables, owner: str, name: str
) -> Object:
    """The repository as GitHub has it now; where it is gone or blocked, noted and raised."""
    try:
        return await github.repository(owner, name)
    except (NotFoundError, GoneError, LegalError):
        known = await tables.repositories.by_name(f"{owner}/{name}")
        if known is not None:
            await tables.repositories.set_gone(known.id)
        raise
