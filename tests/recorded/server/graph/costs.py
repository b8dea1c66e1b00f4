"""What a query may take at most, and what it costs, before it runs.

Source: https://docs.github.com/en/graphql/overview/rate-limits-and-query-limits-for-the-graphql-api
"""

from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLCompositeType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    get_argument_values,
    get_named_type,
    is_composite_type,
)
from graphql.execution.values import VariableValues

from .connections import QueryError
from .fields import is_answered

MAX_NODES = 500_000
_MAX_PAGE = 100


@dataclass
class Price:
    """Nodes at most, and the points of the quota."""

    nodes: int = 0
    requests: int = 0

    @property
    def points(self) -> int:
        """A hundredth of the requests that GitHub would make of its own, at least one."""
        return max(1, (self.requests + 50) // 100)


def price(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    variables: VariableValues,
) -> Price:
    """Of a valid query; raises QueryError for what GitHub refuses, or is not answered here."""
    assert schema.query_type is not None
    walk = _Walk(schema, document, variables)
    walk.selections(operation.selection_set, schema.query_type, 1)
    if walk.price.nodes > MAX_NODES:
        message = (
            f"This query requests up to {walk.price.nodes:,} possible nodes which exceeds "
            f"the maximum limit of {MAX_NODES:,}."
        )
        raise QueryError("MAX_NODE_LIMIT_EXCEEDED", message)
    return walk.price


class _Walk:
    def __init__(
        self, schema: GraphQLSchema, document: DocumentNode, variables: VariableValues
    ) -> None:
        self.price = Price()
        self._schema = schema
        self._variables = variables
        self._fragments = {
            each.name.value: each
            for each in document.definitions
            if isinstance(each, FragmentDefinitionNode)
        }

    def selections(
        self, selected: SelectionSetNode, parent: GraphQLCompositeType, times: int
    ) -> None:
        for each in selected.selections:
            if isinstance(each, FieldNode):
                self._field(each, parent, times)
                continue
            if isinstance(each, FragmentSpreadNode):
                fragment: Any = self._fragments[each.name.value]
            else:
                assert isinstance(each, InlineFragmentNode)
                fragment = each
            condition = fragment.type_condition
            inner: Any = self._schema.get_type(condition.name.value) if condition else parent
            self.selections(fragment.selection_set, inner, times)

    def _field(self, node: FieldNode, parent: GraphQLCompositeType, times: int) -> None:
        name = node.name.value
        if name.startswith("__"):
            return
        assert isinstance(parent, GraphQLObjectType | GraphQLInterfaceType)
        if not is_answered(parent.name, name):
            raise QueryError("NOT_ANSWERED", f"{parent.name}.{name} is not answered here")
        definition = parent.fields[name]
        arguments = get_argument_values(definition, node, self._variables)
        inner = get_named_type(definition.type)
        if inner.name.endswith("Connection"):
            times *= self._page(node, arguments, times)
        if "ids" in arguments:
            times *= len(arguments["ids"])
        if node.selection_set is not None and is_composite_type(inner):
            self.selections(node.selection_set, inner, times)

    def _page(self, node: FieldNode, arguments: dict[str, Any], times: int) -> int:
        """The size of the page asked for; 1 where only the count is."""
        name = node.name.value
        size: int | None = arguments.get("first") or arguments.get("last")
        if size is None:
            asked = {
                each.name.value
                for each in (node.selection_set.selections if node.selection_set else ())
                if isinstance(each, FieldNode)
            }
            if asked <= {"totalCount", "issueCount"}:
                self.price.requests += times
                return 1
            message = (
                f"You must provide a `first` or `last` value to properly paginate the "
                f"`{name}` connection."
            )
            raise QueryError("MISSING_PAGINATION_BOUNDARIES", message)
        if not 0 < size <= _MAX_PAGE:
            bound = "first" if arguments.get("first") else "last"
            message = (
                f"Requesting {size} records on the `{name}` connection exceeds the "
                f"`{bound}` limit of {_MAX_PAGE} records."
            )
            raise QueryError("EXCESSIVE_PAGINATION", message)
        self.price.requests += times
        self.price.nodes += times * size
        return size
