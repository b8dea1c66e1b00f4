"""Inngest: every job type with events is a function of it, at `/api/inngest`.

The protocol is the official SDK's, in a thread of its own (`sdk.py`); `functions.py` says what the
functions do, and `app.py` keeps them up with the types. These import the SDK, and are themselves
imported only where Inngest is configured. Before them stands `endpoint.py`, with the checks of
`signature.py`, which the SDK does not make. `notifier.py` tells runs how their jobs ended.
"""
