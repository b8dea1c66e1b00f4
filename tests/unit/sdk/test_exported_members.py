import subprocess
import sys

import hybridjobs.sdk
import hybridjobs.sdk.testing


def test_everything_exported_exists_and_is_sorted() -> None:
    for module in (hybridjobs.sdk, hybridjobs.sdk.testing):
        assert list(module.__all__) == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


def test_the_public_surface() -> None:
    assert hybridjobs.sdk.__all__ == [
        "Context",
        "Handler",
        "PermanentError",
        "RetryLater",
        "handler",
    ]


def test_importing_the_sdk_imports_no_library() -> None:
    program = (
        "import sys, hybridjobs.sdk;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}"
        " - sys.stdlib_module_names - {'__main__'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    # What site adds (distutils-precedence.pth and the like) begins with an underscore.
    loaded = [name for name in done.stdout.split() if not name.startswith("_")]
    assert loaded == ["hybridjobs"]
