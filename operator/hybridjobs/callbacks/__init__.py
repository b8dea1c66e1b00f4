"""Deliveries of callbacks: what a job that ended has to tell, signed and sent until it is taken.

`targets` says which addresses may be called, `network` connects to no other, `signature` and
`secrets` sign, `sender` makes one try, `retry` decides what follows, `deliverer` is the loop.
"""
