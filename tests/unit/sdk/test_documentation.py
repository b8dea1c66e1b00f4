"""The example of docs/handlers.md does what it says."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from hybridjobs.sdk import PermanentError, RetryLater
from hybridjobs.sdk.testing import run_handler

PAGE = Path(__file__).parents[3] / "docs" / "handlers.md"


@pytest.fixture(scope="module")
def report() -> Any:
    example = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    module: dict[str, Any] = {"__name__": "myjobs.report"}
    exec(compile(example, str(PAGE), "exec"), module)
    return module["customer_report"]


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
