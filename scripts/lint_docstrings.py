"""Check the prose of docstrings, comments and messages.

    python scripts/lint_docstrings.py [PATH ...]

Without a path it checks those of `[tool.lint-docstrings]` in pyproject.toml. ruff checks some rules (a blank line after the
summary, the full stop, the imperative mood, a description for each parameter of an `Args:` section); this script adds:

- a summary line has at most 80 characters, is not a cross-reference (it does not begin with "See" or "As") and names the thing
  (it does not begin with a word such as "What" or "Those");
- a public function or method with more than one parameter, except in scripts, has an `Args:` section, and a `Raises:`
  section that names each exception raised in its own body. Overrides inherit their documentation; functions that a framework
  registers (commands, routes) document their parameters in the annotations;
- no docstring, comment or message uses a word of BANNED. In tests, only the words of docstrings and comments are checked, in
  Markdown all text but code, in JavaScript the comments.
"""

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SUMMARY_LENGTH = 80
RUFF_RULES = "D205,D400,D401,D417"

#: Replacements for each banned word; docs/development/README.md has the rules behind them.
BANNED = {
    r"nobody|somebody|anybody|everybody|whoever|whomever": "name what acts: the caller, the server, the data",
    r"(?-i:he|him|his|she)": "name what acts",
    r"mend|mends|mended|mending": "hint, fix",
    r"to\s(?:judge|decide)\sby": "for evaluation, for the decision",
    r"anew|afresh": "again",
    r"surely(?!:)": "exactly, always",
    r"told|tells?|telling": "passed, reported, distinguished, determines",
    r"met": "found, seen, satisfied",
    r"(?:be|are|is|was|were)\sheld(?![\s-]out)": "kept, in memory",
    r"stands?|stood|lies?(?=\s(?:in|on|over|within|outside|beyond|apart|far))": "is",
    r"becomes\sof|spoken\sof|said\sof|told\sof": "a plain verb",
    r"looks\sat|looked\s(?:at|into)": "read, scanned, evaluated",
    r"in\svain|without\sa\sword": "without effect, without an error",
    r"(?:be|are|is)\shad|(?:come|comes|came)\sto": "a plain verb",
    r"(?<!there\s)(?:is|are|was)\sno(?!\s(?:longer|more)\b)": 'say "must be X, got Y"',
    r"another\sone": "a different one",
    r"(?:go|goes|gone|going)\son\s(?:from|with)\b": "continue from, continue with",
    r"(?:what|became)\s(?:became|comes|came)\sof|next\sto\s(?:no|none|nothing)|boldly|hears|heard(?!\sof)": "a plain word",
    r"whatever|whichever": "any, regardless of",
    r"(?:an?|no|some)\s\w+\sof\s(?:its|their)\sown": "its own, a separate",
    r"likewise|hence|thus|whence": "therefore, the same",
    r"beforehand|thereof|therein|thereby|thereupon|whereupon|wherein": "before, of it, in it",
}
BANNED_PATTERN = re.compile("|".join(rf"\b(?P<b{i}>{words})\b" for i, words in enumerate(BANNED)), re.IGNORECASE)
ADVICE = list(BANNED.values())

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Finding(NamedTuple):
    """One violation of a rule."""

    line: int
    message: str


def check_source(source: str, *, sections: bool = True, tests: bool = False) -> list[Finding]:
    """Return the violations in the source of one module, in order of lines.

    Args:
        source: source code of a module.
        sections: whether to require sections of parameters and exceptions.
        tests: whether to check only the words of docstrings and comments, as strings of tests are data.
    """
    tree = ast.parse(source)
    findings = set(_check_words(source, tree, messages=not tests))
    if not tests:
        findings.update(_check_summaries(tree))
    if sections and not tests:
        findings.update(_check_sections(tree.body))
    return sorted(findings)


def _check_words(source: str, tree: ast.Module, *, messages: bool) -> Iterator[Finding]:
    texts = [
        (t.start[0], t.string) for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT
    ]
    # a string that contains a space is prose: a docstring, a message, a help text
    statements = [n.value for n in ast.walk(tree) if isinstance(n, ast.Expr)]
    constants = [n for n in (ast.walk(tree) if messages else statements) if isinstance(n, ast.Constant)]
    texts += [(n.lineno, n.value) for n in constants if isinstance(n.value, str) and " " in n.value.strip()]
    for line, text in texts:
        text = re.sub(r"`[^`\n]*`|^ +\w+:", "", text, flags=re.MULTILINE)  # code names are not prose
        for found in BANNED_PATTERN.finditer(text):
            advice = ADVICE[int(str(found.lastgroup)[1:])]
            yield Finding(line + text.count("\n", 0, found.start()), f'banned: "{found.group()}" ({advice})')


def check_text(text: str, *, markdown: bool) -> list[Finding]:
    """Return the banned words in Markdown, or in the comments of JavaScript.

    Args:
        text: of the file.
        markdown: whether it is Markdown.
    """
    if markdown:
        text = re.sub(
            r"^```.*?^```|`[^`\n]*`", lambda code: re.sub(r"[^\n]", "", code[0]), text, flags=re.DOTALL | re.MULTILINE
        )
    else:
        text = "\n".join("".join(re.findall(r"(?:^|\s)//.*|/\*.*|^ \*.*", line)) for line in text.splitlines())
    return [
        Finding(1 + text.count("\n", 0, found.start()), f'banned: "{found.group()}" ({ADVICE[int(str(found.lastgroup)[1:])]})')
        for found in BANNED_PATTERN.finditer(text)
    ]


def _check_summaries(tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | Function):
            continue
        docstring = ast.get_docstring(node)
        if not docstring:
            continue
        line = node.body[0].lineno
        summary = docstring.partition("\n")[0]
        if len(summary) > SUMMARY_LENGTH:
            yield Finding(line, f"the summary must have at most {SUMMARY_LENGTH} characters, got {len(summary)}")
        if re.match(r"(See|As)\b", summary):
            yield Finding(
                line, "the summary must not be a cross-reference; remove the docstring of an override, which inherits"
            )
        if word := re.match(r"(What|Who|Where|How|Why|Which|Those|That)\b", summary):
            yield Finding(line, f"the summary must begin with a verb or with the name of the thing, got {word[0]!r}")


def _check_sections(body: list[ast.stmt], aliases: frozenset[str] = frozenset()) -> Iterator[Finding]:
    aliases |= {
        t.id for n in body if isinstance(n, ast.Assign) and _is_annotated(n.value) for t in n.targets if isinstance(t, ast.Name)
    }
    imports = [n for n in body if isinstance(n, ast.ImportFrom) and str(n.module).startswith("recall.cli")]
    aliases |= {one.name for n in imports for one in n.names if one.name[0].isupper()}
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _check_sections(node.body, aliases)
        if not isinstance(node, Function) or node.name.startswith("_") or _is_documented_elsewhere(node, aliases):
            continue
        arguments = _arguments(node)
        if len(arguments) < 2:
            continue
        docstring = ast.get_docstring(node) or ""
        if not re.search(r"^Args:$", docstring, re.MULTILINE):
            yield Finding(node.lineno, f"{node.name}() has {len(arguments)} parameters and no Args section")
        section = re.search(r"^Raises:\n((?: .*\n?|\n)*)", docstring, re.MULTILINE)
        for name in sorted(
            set(_raised(node)) - set(re.findall(r"^ +(?:\w+\.)*(\w+):", section[1] if section else "", re.MULTILINE))
        ):
            yield Finding(node.lineno, f"{node.name}() raises {name}, which no Raises section names")


def _arguments(function: Function) -> list[ast.arg]:
    every = function.args
    named = [*every.posonlyargs, *every.args, *every.kwonlyargs, *(one for one in (every.vararg, every.kwarg) if one)]
    return [one for one in named if one.arg not in {"self", "cls"} and not one.arg.startswith("_")]


def _is_annotated(annotation: ast.expr | None) -> bool:
    """Return whether an annotation is `Annotated[...]`, with a description."""
    return isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") == "Annotated"


def _is_documented_elsewhere(function: Function, aliases: frozenset[str]) -> bool:
    """Return whether a function is an override, a command or a route.

    Args:
        function: the function.
        aliases: names in the module that are aliases of `Annotated[...]`; commands share some.
    """
    if any(_is_annotated(one.annotation) or getattr(one.annotation, "id", "") in aliases for one in _arguments(function)):
        return True
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute):
            return True
        if (decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", "")) in {
            "override",
            "overload",
        }:
            return True
    return False


def _raised(function: Function) -> Iterator[str]:
    """Yield the names of the exceptions raised in the body of a function."""
    nodes: list[ast.AST] = list(function.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            raised = node.exc.func
            name = raised.attr if isinstance(raised, ast.Attribute) else getattr(raised, "id", "")
            if name[:1].isupper():
                yield name
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)


def main() -> int:
    """Check the files and print the findings; return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="files and folders (default: those of pyproject.toml)")
    parser.add_argument("--counts", action="store_true", help="print only the number of findings in each file")
    options = parser.parse_args()
    paths = options.paths
    if not paths:
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["lint-docstrings"]
        paths = [ROOT / name for name in settings["paths"]]
    files = sorted(file for path in paths for file in (path.rglob("*.*") if path.is_dir() else [path]))
    total = 0
    for file in (one for one in files if one.suffix in (".py", ".md", ".js") and "node_modules" not in one.parts):
        if file.suffix != ".py":
            found = check_text(file.read_text(), markdown=file.suffix == ".md")
        else:  # scripts are not a library
            found = check_source(file.read_text(), sections="scripts" not in file.parts, tests="tests" in file.parts)
        total += len(found)
        if options.counts:
            lines = [f"{len(found):4d} {file}"] if found else []
        else:
            lines = [f"{file}:{line}: {message}" for line, message in found]
        print("".join(line + "\n" for line in lines), end="")
    paths = [path for path in paths if "tests" not in path.parts and "docs" not in path.parts and path.suffix != ".md"]
    ruff: list[str | Path] = [
        Path(sys.executable).with_name("ruff"),
        "check",
        "--quiet",
        "--output-format",
        "concise",
        "--select",
        RUFF_RULES,
    ]
    return 1 if subprocess.run([*ruff, *paths]).returncode or total else 0


if __name__ == "__main__":
    sys.exit(main())
