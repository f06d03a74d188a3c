"""Every key, command and link in the documentation exists."""

import ast
import dataclasses
import re
import shlex
import subprocess
import sys
import typing

import pytest

from lib.config import Config
from tests.conftest import PROJECT
from tools import describe_config

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
SECTIONS = {f.name: typing.get_type_hints(Config)[f.name] for f in dataclasses.fields(Config)}
KEYS = {f"{name}.{f.name}" for name, cls in SECTIONS.items() for f in dataclasses.fields(cls)}


def test_docs_configuration_is_up_to_date():
    written = (PROJECT / "docs" / "configuration.md").read_text()
    assert written == describe_config.build_page(), "run: python tools/describe_config.py"
    assert len(re.findall(r"^\| `\w+` \|", written, re.M)) == len(KEYS) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_keys_in_the_text_exist(page):
    pattern = rf"(?<!ddml\.)\b({'|'.join(SECTIONS)})\.([a-zA-Z_]\w*)"
    text = re.sub(r"```python\n.*?```", "", page.read_text(), flags=re.S)  # its variables may have these names
    names = {f"{section}.{key}" for section, key in re.findall(pattern, text)}
    files = {"model.safetensors"}
    assert names - files <= KEYS


def commands(page):
    """The project's commands in fenced blocks and in code spans, continuation lines joined."""
    text = page.read_text().replace("\\\n", " ")
    blocks = [body for kind, body in re.findall(r"```(\w*)\n(.*?)```", text, re.S) if kind in ("", "bash", "sh")]
    candidates = [line for block in blocks for line in block.splitlines()] + re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    starts = ("python ", "torchrun ", "make ")
    return [" ".join(c.partition(" #")[0].split()) for c in candidates if c.strip().startswith(starts)]


ALL = sorted({command for page in PAGES for command in commands(page)})


def test_there_are_commands():
    assert len(ALL) > 10


@pytest.mark.parametrize("command", ALL)
def test_commands_name_scripts_and_options_that_exist(command):
    words = shlex.split(command)
    if words[0] == "make":
        makefile = (PROJECT / "Makefile").read_text()
        targets, variables = (set(re.findall(rf"^([\w-]+) ?{mark}", makefile, re.M)) for mark in (":", "[?]="))
        assert {word for word in words[1:] if "=" not in word} <= targets
        assert {word.partition("=")[0] for word in words[1:] if "=" in word} <= variables
        return
    script = next(w for w in words if w.endswith(".py"))
    path = PROJECT / script.replace("../../", "")
    assert path.is_file(), script
    given = {w.partition("=")[0] for w in words[words.index(script) + 1 :] if re.match(r"--?[a-z]", w)}
    if not given:
        return
    accepted = options(path)
    # argparse completes prefixes
    assert all(any(a.startswith(g) for a in accepted) for g in given), f"{given} of {command}"
    for setting in re.findall(r"\b\w+\.\w+(?==)", command):
        if setting.partition(".")[0] in SECTIONS:
            assert setting in KEYS
    for word in words:
        if word.startswith("experiments/") and word.endswith(".yaml"):
            assert (PROJECT / word).is_file(), word


def options(path):
    """Options of a script's parser, read from its source, because running each script with --help takes longer.

    The evaluator's options are in lib/evaluation, since the command kitti-ap has them too.
    """
    found, source = {"--help", "-h"}, path.read_text()
    if "lib.evaluation.command" in source:
        source += (PROJECT / "lib" / "evaluation" / "command.py").read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and re.fullmatch(r"add|.*\.add_argument", ast.unparse(node.func)):
            texts = [c.value for a in node.args for c in ast.walk(a) if isinstance(c, ast.Constant)]
            found |= {text for text in texts if str(text).startswith("-")}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_files_named_in_experiments_and_the_makefile_exist():
    pages = [PROJECT / "Makefile", *(PROJECT / "experiments").glob("*/*.yaml")]
    named = {name for page in pages for name in re.findall(r"\b(?:docs|tools)/[\w/]+\.(?:md|py)\b", page.read_text())}
    assert len(named) > 5 and [name for name in named if not (PROJECT / name).is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(p.name for p in (PROJECT / "tools").glob("*.py")))
def test_every_tool_has_help(script):
    run = [sys.executable, str(PROJECT / "tools" / script), "--help"]
    done = subprocess.run(run, cwd=PROJECT / "docs", capture_output=True, text=True, check=True)
    assert "usage:" in done.stdout
