"""Where things are kept: outside the checkout, so that a fresh clone finds what was built."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("HYBRIDJOBS_CACHE") or Path.home() / ".cache" / "hybridjobs").resolve()
TOOLS = CACHE / "tools"
BIN = CACHE / "bin"
"""Links to the kubectl and helm in use: one stable folder to put on PATH."""
IMAGES = CACHE / "images"
KIND = CACHE / "kind"
NATIVE = CACHE / "native"
"""Disk state of the native cluster: certificates, configuration, logs, etcd, images."""
INSTANCE = int(os.environ.get("HYBRIDJOBS_INSTANCE") or 0)
"""0 to 7: clusters with different numbers and cache folders run beside one another."""
RUN = Path(f"/run/hybridjobs{INSTANCE or ''}")
"""Process records and unix sockets of the native cluster, whose paths must stay short."""
