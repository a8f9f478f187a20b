"""The house rules: each looks at one file, yields (line, what is wrong) and names what to do instead."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.architecture.sources import Source

Finding = tuple[int, str]
Check = Callable[[Source], Iterator[Finding]]

LONGEST_FILE_LINES = 400
LONGEST_FUNCTION_LINES = 70

# Written in pieces, so that this file does not break its own rules.
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]) + r")\b")
MACHINE = re.compile("|".join([
    r"(?<![\w.~])/wo" + r"rk/", r"(?<![\w.~])/ro" + r"ot/", r"/opt/wh" + "eels",
    r"(?<![\w.~])/ho" + r"me/(?!person\b)\w{3}",
    r"/Us" + r"ers/\w{3}",
]))  # fmt: skip
REGISTRY = re.compile(
    r"https?://(py" + r"pi\.org|files\.python" + r"hosted\.org|test\.py" + r"pi|[\w.-]*art" + r"ifactory)"
)
WORKSHOP = re.compile("|".join([
    "shared/fa" + "cts", "shared/DE" + "SIGN", "shared/se" + "eds", r"\bBRI" + r"EF\.md", "issues sh" + r"ow\b",
    "(?i:work" + "place)", "(?i:co-authored-" + "by)", "(?i:this coding ses" + "sion)",
]))  # fmt: skip
IGNORE = re.compile(r"#\s*type:\s*" + r"ignore(?P<codes>\[[\w, -]+\])?(?P<rest>.*)")


@dataclass(frozen=True)
class Rule:
    """One ban.

    Attributes:
        name: how the test is called.
        instead: what to write in its place.
        check: yields what breaks the rule in one file.
        applies: which files it looks at.
    """

    name: str
    instead: str
    check: Check
    applies: Callable[[Source], bool]


def _lines(pattern: re.Pattern[str]) -> Check:
    def check(source: Source) -> Iterator[Finding]:
        for number, line in enumerate(source.text.splitlines(), 1):
            if match := pattern.search(line):
                yield number, f"has {match[0]!r}"

    return check


def _comment(source: Source, number: int) -> str:
    """The words of a line's comment without linter codes; empty where there are none."""
    _, _, comment = source.line(number).partition("#")
    return re.sub(r"noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?|[#:–—-]", " ", comment).strip()


def _handler_names(handler: ast.ExceptHandler) -> set[str]:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {kind.id for kind in kinds if isinstance(kind, ast.Name)}


def bare_except(source: Source) -> Iterator[Finding]:
    """``except:`` also catches the wish to stop."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"


def broad_except(source: Source) -> Iterator[Finding]:
    """Catching everything needs a reason beside it, unless it only cleans up and raises the same again."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler) or not _handler_names(node) & {
            "Exception",
            "BaseException",
        }:
            continue
        if isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None:
            continue
        alone = [n for n in (node.lineno - 1, node.lineno + 1) if source.line(n).lstrip().startswith("#")]
        if not any(len(_comment(source, n).split()) >= 3 for n in [node.lineno, *alone]):
            yield node.lineno, "catches everything and does not say why"


def unexplained_ignore(source: Source) -> Iterator[Finding]:
    """An ignored type error names its code and its reason."""
    for number, line in enumerate(source.text.splitlines(), 1):
        match = IGNORE.search(line)
        if match and not (match["codes"] and len(re.findall(r"[A-Za-z]{2,}", match["rest"])) >= 2):
            yield number, "ignores a type error without its code and a reason"


def prints(source: Source) -> Iterator[Finding]:
    """Only the command line's output modules write to stdout."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno, "prints"


def long_file(source: Source) -> Iterator[Finding]:
    """A file that does not fit one head."""
    count = len(source.text.splitlines())
    if count > LONGEST_FILE_LINES:
        yield 1, f"has {count} lines, {LONGEST_FILE_LINES} are allowed"


def long_function(source: Source) -> Iterator[Finding]:
    """A function that does not fit one screen."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > LONGEST_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {count} lines, {LONGEST_FUNCTION_LINES} are allowed"


def naive_time(source: Source) -> Iterator[Finding]:
    """``utcnow`` returns a time that does not know its zone."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in {"utcnow", "utcfromtimestamp"}:
            yield node.lineno, f"uses {node.attr}"


def unseeded_chance(source: Source) -> Iterator[Finding]:
    """A test that fails must fail again."""
    modules = {"random", "secrets", "np.random", "numpy.random"}
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        seeded = name in {"Random", "default_rng", "Generator", "SeedSequence"} and bool(
            node.args or node.keywords
        )
        if (owner in modules and not seeded) or (owner, name) == ("os", "urandom"):
            yield node.lineno, f"calls {owner}.{name} without a seed"


def _narrows(test: ast.expr) -> bool:
    """Whether an assertion only tells the type checker what is known: ``isinstance`` or ``is not None``."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _narrows(test.operand)
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], ast.IsNot) and ast.unparse(test.comparators[0]) == "None"
    return isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "isinstance"


def asserted_input(source: Source) -> Iterator[Finding]:
    """``python -O`` drops asserts, so none may check what a caller hands in."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        arguments = node.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        handed_in = {argument.arg for argument in named} - {"self", "cls"}
        for inner in ast.walk(node):
            if isinstance(inner, ast.Assert) and not _narrows(inner.test):
                used = {name.id for name in ast.walk(inner.test) if isinstance(name, ast.Name)}
                if shared := sorted(used & handed_in):
                    yield inner.lineno, f"asserts about its argument {shared[0]}"


def stub(source: Source) -> Iterator[Finding]:
    """What is not there must not look as if it were."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            name = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(name, ast.Name) and name.id == "NotImplementedError":
                yield node.lineno, "raises NotImplementedError"


def _python(source: Source) -> bool:
    return source.is_python


def _product(source: Source) -> bool:
    return source.is_product


def _ours_not_tests(source: Source) -> bool:
    return source.is_python and not source.is_test


def _silent_module(source: Source) -> bool:
    return source.is_product and "cli" not in source.path.with_suffix("").parts


def _test(source: Source) -> bool:
    return source.is_python and source.is_test


def _prose_and_code(source: Source) -> bool:
    return source.path.suffix in {".py", ".md", ".toml", ".sh", ".tcss", ""} and source.path.name != "LICENSE"


def _anything(source: Source) -> bool:
    return source.path.name != "LICENSE"


RULES = (
    Rule("unfinished", "finish it, or write down the limit in the docs", _lines(UNFINISHED), _prose_and_code),
    Rule("stub", "leave the name away until it works; abc.abstractmethod for interfaces", stub, _product),
    Rule("bare-except", "name the errors that are expected", bare_except, _python),
    Rule(
        "broad-except",
        "name the errors, or say in a comment why none may pass",
        broad_except,
        _ours_not_tests,
    ),
    Rule("unexplained-ignore", "`type: " + "ignore[code]  # reason`", unexplained_ignore, _python),
    Rule("print", "return the text to a module under cli/, or log it", prints, _silent_module),
    Rule("long-file", "look for a second room inside", long_file, _ours_not_tests),
    Rule("long-function", "name its parts and pull them out", long_function, _ours_not_tests),
    Rule("naive-time", "datetime.now(timezone.utc), at an edge only", naive_time, _python),
    Rule("unseeded-chance", "random.Random(a printed seed), or hypothesis", unseeded_chance, _test),
    Rule(
        "asserted-input",
        "raise a leaf of dllm_protocol.errors that names both values",
        asserted_input,
        _product,
    ),
    Rule(
        "machine-path", "a path relative to the project, or a fixture's tmp_path", _lines(MACHINE), _anything
    ),
    Rule("registry-host", "leave it to the installer's own settings", _lines(REGISTRY), _anything),
    Rule(
        "workshop-word", "the project speaks of itself alone: docs/ of its own", _lines(WORKSHOP), _anything
    ),
)
