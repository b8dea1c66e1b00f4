"""Captures by GraphQL: many pull requests with all that belongs to them in one request.

`queries` are the documents, `objects` makes their answers REST's objects, `discussions` knows what
of a pull request is still to be paged; `sync` and `details` are the handlers.
"""
