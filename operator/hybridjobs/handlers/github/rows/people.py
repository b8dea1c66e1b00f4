"""Users, organisations and bots."""

from collections.abc import Iterable

from hybridjobs.handlers.github.rows.members import Members, Object, Row
from hybridjobs.ids import new_id

# https://github.com/ghost, whom REST names where an account is gone; elsewhere it says null.
GHOST_ID = 10137


def contributor_row(user: Object) -> Row:
    """A user, an organisation or a bot, whole or as it stands in other objects."""
    whose = Members("user", user)
    login = whose.need("login", whose.text("login"))
    return {
        "id": str(new_id()),
        "github_id": whose.need("id", whose.github_id()),
        "username": login,
        "display_name": whose.text("name"),
        "avatar_url": whose.text("avatar_url"),
        "profile_url": whose.text("html_url"),
        "email": whose.text("email"),
        "company": whose.text("company"),
        "location": whose.text("location"),
        "bio": whose.text("bio"),
        "blog": whose.text("blog") or None,
        "public_repos": whose.number("public_repos"),
        "public_gists": whose.number("public_gists"),
        "followers": whose.number("followers"),
        "following": whose.number("following"),
        "github_created_at": whose.moment("created_at"),
        "github_updated_at": whose.moment("updated_at"),
        "is_bot": whose.text("type") == "Bot" or login.endswith("[bot]"),
    }


def contributor_rows(objects: Iterable[Object], roles: Iterable[str]) -> list[Row]:
    """Everyone who is in one of the roles, but ghosts, and whoever has no id."""
    named = list(roles)
    return [
        contributor_row(each[role])
        for each in objects
        for role in named
        if isinstance(each.get(role), dict) and each[role].get("id") not in (None, GHOST_ID)
    ]


def each_once(rows: Iterable[Row]) -> list[Row]:
    """Each of them once, with all that any of their rows tells, in the order of GitHub's ids."""
    found: dict[int, Row] = {}
    for row in rows:
        known = found.setdefault(row["github_id"], row)
        if known is not row:
            told = {name: value for name, value in row.items() if value is not None}
            is_bot = known["is_bot"] or row["is_bot"]
            found[row["github_id"]] = known | told | {"id": known["id"], "is_bot": is_bot}
    return [found[id_] for id_ in sorted(found)]


def author(whose: Members, role: str = "user") -> Row:
    """The columns that say who wrote it; both None for a ghost."""
    user = whose.part(role)
    if user.github_id() == GHOST_ID:
        return {"author_github_id": None, "author_login": None}
    return {"author_github_id": user.github_id(), "author_login": user.text("login")}
