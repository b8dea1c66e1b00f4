"""The pages of the documentation, and what their examples are made of."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "charts/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# Four spaces after an empty line: code, but not the next paragraph of a list's item.
_INDENTED = re.compile(r"(?<=\n\n)((?: {4,}.*\n)(?:(?: {4,}.*)?\n)*)")
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Example:
    """A block of code, or of anything else that is not prose; `language` as its fence has it."""

    page: str
    language: str
    text: str


def name_of(page: Path) -> str:
    """How a page is called in messages."""
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def examples(*languages: str) -> list[Example]:
    """Every block of every page in one of these languages; "" is one without a language."""
    return [
        example for page in PAGES for example in _examples(page) if example.language in languages
    ]


def yaml_examples() -> list[Example]:
    """Those in YAML, and examples' files: fenced ones say so, indented ones begin with a member."""
    indented = [
        example for example in examples("") if re.match(r"(kind|apiVersion): |\w+:\n", example.text)
    ]
    files = [
        Example(name_of(path), "yaml", path.read_text())
        for path in (ROOT / "examples").rglob("*.yaml")
    ]
    return [*examples("yaml"), *indented, *files]


def inline(page: Path) -> list[str]:
    """What stands between backticks in a page's prose."""
    return _INLINE.findall(prose(page))


def _examples(page: Path) -> Iterator[Example]:
    text = page.read_text()
    for _, language, body in _FENCE.findall(text):
        yield Example(name_of(page), language, textwrap.dedent(body))
    for body in _INDENTED.findall(_FENCE.sub("", text)):
        yield Example(name_of(page), "", textwrap.dedent(body))


def commands(text: str) -> Iterator[str]:
    """The lines of a shell, continued ones joined, without prompts and comments."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    for line in joined.splitlines():
        command = re.sub(r"(^|\s)#.*", "", line).removeprefix("$ ").strip()
        if command:
            yield command
