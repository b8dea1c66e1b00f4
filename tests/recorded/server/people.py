"""The people of simulated repositories: one crowd, known by index, some of them bots."""

from typing import Any
from urllib.parse import quote

from .templates import filled

Object = dict[str, Any]

GHOST_ID = 10137
_FIRST_ID = 30_000_000
_BOT_EVERY = 20


class People:
    """Who has which login now. A login that was given up may be taken by another."""

    def __init__(self, template: Object) -> None:
        login = template["login"]
        paths = {f"{host}/{login}": f"{host}/@PATH@" for host in ("github.com", "github.com/users")}
        marks = paths | {login: "@LOGIN@", str(template["id"]): "@ID@"}
        self._make = filled(template, marks)
        self.renamed: dict[int, str] = {}
        self._free: str | None = None
        self._known: dict[tuple[str, int], Object] = {}

    def is_bot(self, index: int) -> bool:
        return index % _BOT_EVERY == 0

    def login(self, index: int) -> str:
        """The present one, as the REST API has it."""
        return self._name(index) + ("[bot]" if self.is_bot(index) else "")

    def _name(self, index: int) -> str:
        first = f"helper-{index}" if self.is_bot(index) else f"person-{index}"
        return self.renamed.get(index, first)

    def index(self, user: Object | None) -> int | None:
        """Of somebody from here."""
        return None if user is None else int(user["id"]) - _FIRST_ID

    def user(self, index: int) -> Object:
        """As other objects contain them."""
        return self._user(self.login(index), _FIRST_ID + index, bot=self.is_bot(index))

    def ghost(self) -> Object:
        """Whom the REST API names for accounts that are gone."""
        return self._user("ghost", GHOST_ID, bot=False)

    def rename(self, index: int) -> None:
        """Every second one takes the login that the one before gave up."""
        old = self._name(index)
        if self._free is None or index in self.renamed:
            self.renamed[index], self._free = f"renamed-{index}", old
        else:
            self.renamed[index], self._free = self._free, None

    def find(self, login: str, count: int) -> Object | None:
        """By the present login, among the first `count`."""
        found = (index for index in range(count) if self.login(index).lower() == login.lower())
        index = next(found, None)
        return None if index is None else self.user(index)

    def _user(self, login: str, id_: int, *, bot: bool) -> Object:
        if (login, id_) in self._known:
            return self._known[login, id_]
        made = self._make(LOGIN=login, PATH=quote(login), ID=str(id_))
        name = {} if "name" not in made else {"name": login}
        kind = {"id": id_, "type": "Bot" if bot else "User", "node_id": f"U_{id_}"}
        made.pop("email", None)
        self._known[login, id_] = made | name | kind
        return self._known[login, id_]
