"""OCI image archives: only the blobs that the receiver lacks, so that a load takes a second."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_NAME = "io.containerd.image.name"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _add_index(tar: tarfile.TarFile, name: str, manifest: dict[str, Any]) -> None:
    index = {"schemaVersion": 2, "manifests": [{**manifest, "annotations": {_NAME: name}}]}
    _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    _add(tar, "index.json", json.dumps(index).encode())


def write_program(archive: Path, name: str, program: Path, path: str) -> None:
    """Write an image of one static program alone, which is there at `path` and is run."""
    layer_file = io.BytesIO()
    with tarfile.open(fileobj=layer_file, mode="w") as tar:
        _add(tar, path.removeprefix("/"), program.read_bytes(), mode=0o755)
    layer = layer_file.getvalue()
    config = json.dumps(
        {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {"Entrypoint": [path], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, layer)],
        }
    ).encode()
    with tarfile.open(archive, "w") as tar:
        _add_index(tar, name, _descriptor(_MANIFEST, manifest))
        for content in (layer, config, manifest):
            _add(tar, f"blobs/sha256/{_digest(content)[7:]}", content)


def image_digest(layout: Path) -> str:
    """Return the digest of the image in a layout folder."""
    return str(_entry(layout)["digest"])


def _entry(layout: Path) -> dict[str, Any]:
    """Return the index entry that has a name: a push leaves the one before it nameless."""
    index = json.loads((layout / "index.json").read_text())
    named = [entry for entry in index["manifests"] if entry.get("annotations")]
    return {key: named[0][key] for key in ("mediaType", "digest", "size")}


def _parts(layout: Path) -> list[dict[str, Any]]:
    """Return the descriptors of an image's layers, configuration and manifest."""
    entry = _entry(layout)
    manifest = json.loads(_blob(layout, entry["digest"]).read_text())
    return [*manifest["layers"], manifest["config"], entry]


def write_difference(layout: Path, archive: Path, name: str, there: AbstractSet[str]) -> None:
    """Write the image of a layout folder as an archive, without the blobs that are `there`."""
    with tarfile.open(archive, "w") as tar:
        _add_index(tar, name, _entry(layout))
        for part in _parts(layout):
            if part["digest"] not in there:
                blob = _blob(layout, part["digest"])
                tar.add(blob, f"blobs/sha256/{blob.name}")


def prune(layout: Path) -> int:
    """Remove the blobs of earlier images from a layout folder; return the bytes that stay."""
    used = {_blob(layout, part["digest"]) for part in _parts(layout)}
    for blob in (layout / "blobs" / "sha256").iterdir():
        if blob not in used:
            blob.unlink()
    return sum(blob.stat().st_size for blob in used)


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / "sha256" / digest.partition(":")[2]
