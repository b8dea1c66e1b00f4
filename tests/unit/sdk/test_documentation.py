"""The examples of docs/handlers.md and README.md do what they say."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from hybridjobs.sdk import PermanentError, RetryLater
from hybridjobs.sdk.testing import run_handler

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "handlers.md"


def first_example(page: Path) -> dict[str, Any]:
    """What the module of the page's first example has."""
    example = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[0]
    module: dict[str, Any] = {"__name__": "myjobs.report"}
    exec(compile(example, str(page), "exec"), module)
    return module


@pytest.fixture(scope="module")
def report() -> Any:
    return first_example(PAGE)["customer_report"]


async def test_the_handler_of_the_readme_goes_on_where_it_was() -> None:
    nightly = first_example(ROOT / "README.md")["nightly"]
    run = await run_handler(nightly, {"day": "2026-11-24"})
    assert run.result == {"pages": 10}
    assert run.checkpoints[-1] == {"next": 10}
    later = await run_handler(nightly, {"day": "2026-11-24"}, checkpoint={"next": 8}, attempt=2)
    assert later.checkpoints == [{"next": 9}, {"next": 10}]


def client(status: int = 200) -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"retry-after": "30"})

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


async def test_the_example_runs_as_its_test_says(report: Any) -> None:
    async with client() as http:
        run = await run_handler(report, {"customer": "a", "pages": 2}, http=http)
        assert run.result == {"pages": 2}
        assert run.checkpoints == [{"page": 1}, {"page": 2}]
        later = await run_handler(
            report, {"customer": "a", "pages": 2}, http=http, checkpoint={"page": 1}, attempt=2
        )
        assert later.checkpoints == [{"page": 2}]


@pytest.mark.parametrize(("status", "error"), [(404, PermanentError), (429, RetryLater)])
async def test_the_example_fails_as_it_says(
    report: Any, status: int, error: type[Exception]
) -> None:
    async with client(status) as http:
        with pytest.raises(error):
            await run_handler(report, {"customer": "a"}, http=http)
