"""Repositories."""

from hybridjobs.handlers.github.rows.members import Members, Object, Row
from hybridjobs.ids import new_id


def repository_row(repository: Object) -> Row:
    """A repository, whole or as it stands in a pull request's base."""
    its = Members("repository", repository)
    owner = its.part("owner")
    return {
        "id": str(new_id()),
        "github_id": its.need("id", its.github_id()),
        "full_name": its.need("full_name", its.text("full_name")),
        "owner": owner.need("login", owner.text("login")),
        "name": its.need("name", its.text("name")),
        "description": its.text("description"),
        "homepage": its.text("homepage") or None,
        "language": its.text("language"),
        "stargazers_count": its.number("stargazers_count"),
        "watchers_count": its.number("watchers_count"),
        "forks_count": its.number("forks_count"),
        "open_issues_count": its.number("open_issues_count"),
        "size": its.number("size"),
        "default_branch": its.text("default_branch"),
        "is_fork": its.flag("fork"),
        "is_archived": its.flag("archived"),
        "is_disabled": its.flag("disabled"),
        "is_private": its.flag("private"),
        "is_template": its.flag("is_template"),
        "has_issues": its.flag("has_issues"),
        "has_projects": its.flag("has_projects"),
        "has_wiki": its.flag("has_wiki"),
        "has_pages": its.flag("has_pages"),
        "has_downloads": its.flag("has_downloads"),
        "has_discussions": its.flag("has_discussions"),
        "license": its.part("license").text("spdx_id"),
        "topics": its.texts("topics"),
        "avatar_url": owner.text("avatar_url"),
        "github_created_at": its.moment("created_at"),
        "github_updated_at": its.moment("updated_at"),
        "github_pushed_at": its.moment("pushed_at"),
    }
