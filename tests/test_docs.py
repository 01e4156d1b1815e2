"""The documentation: it builds strictly and offline, and what it tells people to type exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer

from keepsight import config
from keepsight.cli.app import app
from keepsight.errors import KeepsightError

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
SOURCE = REPOSITORY / "src" / "keepsight"
PAGES = sorted([REPOSITORY / "README.md", *DOCS.glob("*.md")])
TEXTS = [*PAGES, *sorted(SOURCE.rglob("*.py")), *sorted(SOURCE.rglob("*.html"))]

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?P<rest>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S)
INLINE = re.compile(r"`(keepsight [^`\n]+)`")
URL_PATH = re.compile(r"https?://[^/\s\"']+(/[^\s\"'?]*)")


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    page: str
    language: str
    title: str
    body: str


@cache
def blocks() -> tuple[Block, ...]:
    found = []
    for page in PAGES:
        for match in FENCE.finditer(page.read_text(encoding="utf-8")):
            indent = len(match["indent"])
            body = "\n".join(line[indent:] for line in match["body"].splitlines())
            found.append(Block(page.name, match["language"], match["rest"].strip(), body))
    return tuple(found)


def typed_lines() -> Iterator[tuple[str, str]]:
    """(page, command line) of all code blocks that people copy into a terminal."""
    for block in blocks():
        if block.language == "bash":
            for line in block.body.replace("\\\n", " ").splitlines():
                if line.strip() and not line.startswith("#"):
                    yield block.page, re.split(r" +#", line)[0]


KEEPSIGHT_LINES = sorted({item for item in typed_lines() if item[1].startswith("keepsight ")})


def resolve(words: list[str]) -> tuple[Any, list[str], list[str]]:
    """The command that the first words name, these words, and the others."""
    node: Any = typer.main.get_command(app)
    for place, word in enumerate(words):
        children = getattr(node, "commands", None)
        if children is None:
            return node, words[:place], words[place:]
        if word not in children and getattr(node, "default_command", None) is not None:
            return children[node.default_command], words[:place], words[place:]
        if word not in children:
            raise AssertionError(f"there is no command `keepsight {' '.join(words[: place + 1])}`")
        node = children[word]
    return node, words, []


# --- what people type -------------------------------------------------------------------------------------------------


def test_the_pages_show_commands() -> None:
    assert len(KEEPSIGHT_LINES) > 40


@pytest.mark.parametrize(("page", "line"), KEEPSIGHT_LINES, ids=lambda value: value)
def test_every_command_line_is_accepted(page: str, line: str) -> None:
    """Parsed by the command itself, without running it: unknown options and missing arguments fail here."""
    words = shlex.split(re.split(r" [|>&#]", line)[0])[1:]
    command, named, others = resolve(words)
    if any(word in {"--help", "-h", "--version"} for word in others[:1]):
        return
    assert not hasattr(command, "commands"), f"`{line}` in {page} stops before the command"
    command.make_context(" ".join(named), others)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_command_in_running_text_exists(path: Path) -> None:
    """Pages, messages and templates: whoever is told to run something must find it."""
    # Adjacent string literals read as one text.
    text = re.sub(r"\"\s*\n\s*f?\"", "", path.read_text(encoding="utf-8"))
    for mention in INLINE.findall(text):
        words = mention.split()[1:]
        plain = [word for word in words if re.fullmatch(r"[a-z-]+", word)]
        if not plain or words[0] != plain[0]:
            continue
        command, _, _ = resolve_leniently(words)
        options = {name for item in getattr(command, "params", []) for name in (*item.opts, *item.secondary_opts)}
        options.add("--help")
        unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]
        assert not unknown, f"`{mention}` in {path.name}: {' '.join(unknown)}"


def resolve_leniently(words: list[str]) -> tuple[Any, list[str], list[str]]:
    """As ``resolve``, but a mention may stop at a group of commands (`data diff|show`) or go on in capitals."""
    return resolve([part for part in words if "|" not in part])


def test_readme_is_short_and_its_make_targets_exist() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 80
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    named = {line.split()[1] for _, line in typed_lines() if line.startswith("make ")}
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize(
    "block", [block for block in blocks() if "keepsight.yaml" in block.title], ids=lambda block: block.page
)
def test_settings_in_the_pages_are_valid(block: Block, tmp_path: Path) -> None:
    (tmp_path / config.FILE_NAME).write_text(block.body)
    config.load(tmp_path, environment={})


def test_json_in_the_pages_is_json() -> None:
    found = [block for block in blocks() if block.language == "json"]
    assert found
    for block in found:
        json.loads(block.body)


def test_every_route_in_the_pages_exists() -> None:
    """Of the requests shown with curl, and of the table of routes."""
    asked = {path for _, line in typed_lines() if line.startswith("curl ") for path in URL_PATH.findall(line)}
    assert asked
    known = [re.compile(re.sub(r"\{[^}]+\}", "[^/]+", route)) for route in routes()]
    unknown = [path for path in sorted(asked) if not any(route.fullmatch(path) for route in known)]
    table = (DOCS / "serving.md").read_text(encoding="utf-8").partition("## The other routes")[2].partition("\n## ")[0]
    rows = [line.partition(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    named = [name for cell in rows for name in re.findall(r"`([^`]+)`", cell)]
    assert len(named) > 10
    shapes = {re.sub(r"\{[^}]+\}", "{}", route) for route in routes()}
    unknown += [name for name in named if f"/v1/{{}}/{re.sub(r'{[^}]+}', '{}', name)}" not in shapes]
    assert unknown == []


def routes() -> set[str]:
    """Paths of serving and of REST, with their placeholders."""
    from keepsight.web import api, galleries

    paths = {str(getattr(route, "path", "")) for module in (api, galleries) for route in module.router.routes}
    text = (SOURCE / "serving" / "app.py").read_text(encoding="utf-8")
    return paths | set(re.findall(r'add_api_route\(\s*"([^"]+)"', text))


# --- the built site ---------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page loads, where it links to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._script = tag == "script"
        if tag in {"script", "img", "iframe", "source", "video", "audio", "embed"} and values.get("src"):
            self.loads.append(str(values["src"]))
        if tag == "link" and values.get("rel") not in {"canonical", "next", "prev"}:
            self.loads.append(str(values.get("href")))

    def handle_data(self, data: str) -> None:
        (self.scripts if self._script else self.text).append(data)

    def handle_endtag(self, tag: str) -> None:
        self._script = False


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built strictly: a broken link or a page outside the navigation fails."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.mark.xdist_group("docs")
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    for path in pages:
        foreign = [load for load in read(path).loads if re.match(r"(https?:)?//", load)]
        assert foreign == [], path.relative_to(site)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet
    assert not list(site.rglob("hooks.py"))


@pytest.mark.xdist_group("docs")
def test_every_setting_is_on_the_page(site: Path) -> None:
    text = " ".join(read(site / "settings" / "index.html").text)
    for setting in config.TABLE:
        assert setting.name in text
        assert config.environment_name(setting.name) in text
        assert setting.help.replace("`", "").split(",")[0] in " ".join(text.split()).replace(" .", ".")


@pytest.mark.xdist_group("docs")
def test_every_command_is_on_the_page(site: Path) -> None:
    text = " ".join(" ".join(read(site / "commands" / "index.html").text).split())

    def check(node: Any, words: str) -> None:
        for name, child in getattr(node, "commands", {}).items():
            check(child, f"{words} {name}")
        if not hasattr(node, "commands"):
            assert words in text
            assert all(option in text for item in node.params for option in item.opts if option.startswith("--"))

    check(typer.main.get_command(app), "keepsight")


@pytest.mark.xdist_group("docs")
def test_every_error_is_on_the_page(site: Path) -> None:
    text = " ".join(read(site / "errors" / "index.html").text)

    def kinds(kind: type[KeepsightError]) -> Iterator[type[KeepsightError]]:
        for child in kind.__subclasses__():
            if child.__module__ == "keepsight.errors":
                yield child
                yield from kinds(child)

    for kind in kinds(KeepsightError):
        assert kind.code in text


def test_pictures_of_the_readme_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name} shows {target}"
