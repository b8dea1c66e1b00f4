"""GitHub's objects as its REST API gives them: whole, valid, and changed by keyword."""

from typing import Any

Object = dict[str, Any]
REPOSITORY_ID = 1001


def user(id_: int = 1, login: str = "octocat", **changes: Any) -> Object:
    return {
        "id": id_,
        "login": login,
        "avatar_url": f"https://avatars.example/{id_}",
        "html_url": f"https://github.com/{login}",
        "type": "User",
        **changes,
    }


def repository(
    id_: int = REPOSITORY_ID, full_name: str = "octo-org/hello", **changes: Any
) -> Object:
    owner, name = full_name.split("/")
    return {
        "id": id_,
        "full_name": full_name,
        "name": name,
        "owner": user(50, owner, type="Organization"),
        "private": False,
        "updated_at": "2026-01-01T00:00:00Z",
        **changes,
    }


def pull_request(number: int = 1, **changes: Any) -> Object:
    return {
        "id": 2000 + number,
        "number": number,
        "title": f"Pull {number}",
        "body": "why",
        "state": "open",
        "user": user(),
        "base": {"ref": "main"},
        "head": {"ref": "topic"},
        "draft": False,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-02T00:00:00Z",
        "closed_at": None,
        "merged_at": None,
        **changes,
    }


def review(id_: int = 3001, **changes: Any) -> Object:
    return {
        "id": id_,
        "user": user(2, "reviewer"),
        "body": "fine",
        "state": "APPROVED",
        "submitted_at": "2026-01-02T00:00:00Z",
        "commit_id": "c0ffee",
        "pull_request_url": "https://api.github.com/repos/octo-org/hello/pulls/1",
        **changes,
    }


def issue_comment(id_: int = 4001, **changes: Any) -> Object:
    return {
        "id": id_,
        "user": user(3, "commenter"),
        "body": "why so?",
        "created_at": "2026-01-02T00:00:00Z",
        "updated_at": "2026-01-02T01:00:00Z",
        "issue_url": "https://api.github.com/repos/octo-org/hello/issues/1",
        **changes,
    }


def review_comment(id_: int = 5001, **changes: Any) -> Object:
    comment = issue_comment(id_)
    del comment["issue_url"]
    return comment | {
        "pull_request_url": "https://api.github.com/repos/octo-org/hello/pulls/1",
        "pull_request_review_id": 3001,
        "position": 4,
        "original_position": 5,
        "diff_hunk": "@@ -1 +1 @@",
        "path": "README.md",
        "commit_id": "c0ffee",
        "original_commit_id": "decaf",
        **changes,
    }


def issue(number: int = 7, **changes: Any) -> Object:
    return {
        "id": 6000 + number,
        "number": number,
        "title": f"Issue {number}",
        "body": "broken",
        "state": "closed",
        "user": user(),
        "closed_by": user(2, "reviewer"),
        "labels": [{"id": 1, "name": "bug", "color": "d73a4a"}],
        "assignees": [user(3, "commenter")],
        "milestone": {"number": 2, "title": "1.0", "state": "open", "due_on": None},
        "comments": 3,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-03T00:00:00Z",
        "closed_at": "2026-01-03T00:00:00Z",
        **changes,
    }
