"""What the statements of store/types.py do that the operator uses, on rows in memory."""

from hybridjobs.store import types
from tests.simulation.rows import Kept, Parameters, Rows, Statements


class TypeStatements:
    """Which types there are."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.all: Statements = {
            types._UPSERT: self._upsert,
            types._DELETE: self._delete,
            types._DELETE_OTHERS: self._delete_others,
        }

    def _upsert(self, given: Parameters) -> Rows:
        names = ("type", "name", "uid", "generation")
        self._kept.set_type(
            {**{name: given[name] for name in names}, "spec": given["spec"].obj, "deleted": False}
        )
        return []

    def _delete(self, given: Parameters) -> Rows:
        for row in list(self._kept.types.values()):
            if row["uid"] == given[0]:
                self._kept.set_type({**row, "deleted": True})
        return []

    def _delete_others(self, given: Parameters) -> Rows:
        for row in list(self._kept.types.values()):
            if row["type"] not in given[0]:
                self._kept.set_type({**row, "deleted": True})
        return []
