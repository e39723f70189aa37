"""Digests of Python code and everything it refers to, without comments and docstrings.

A digest covers the definitions (functions, classes, constants) that some roots reach through names
and imports. It changes with the code of these definitions, never with their formatting,
documentation or module.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

ALL = "*"
"""Name that stands for all definitions of a module."""
EFFECTS = ""
"""Name that stands for a module's statements that define nothing, such as registrations."""


@dataclass(frozen=True, order=True)
class Definition:
    """A name that a module defines at its top level."""

    module: str
    """Full name of the module."""
    name: str
    """Name within the module, or :data:`ALL` or :data:`EFFECTS`."""

    @classmethod
    def parse(cls, text: str) -> Definition:
        """Read ``module:name``."""
        module, _, name = text.partition(":")
        return cls(module, name)


@dataclass
class _Module:
    """Definitions and imports of one file."""

    name: str
    """Full name of the module."""
    package: str
    """Package that relative imports start from."""
    statements: dict[str, list[ast.stmt]] = field(default_factory=dict)
    """Statements by the name that they define; :data:`EFFECTS` has the rest."""
    imports: dict[str, Definition] = field(default_factory=dict)
    """Imported definitions by their name in this file, including imports within functions."""
    _bodies: dict[str, _Body] = field(default_factory=dict)
    """Code of the definitions that were asked for, by name."""

    @classmethod
    def read(cls, name: str, package: str, source: bytes) -> _Module:
        """Collect the definitions and imports of a file."""
        module = cls(name, package)
        for statement in ast.parse(source).body:
            if not _is_for_types(statement):
                for inner in _statements(statement):
                    module._import(inner)
                for defined in _defined_by(statement):
                    module.statements.setdefault(defined, []).append(statement)
        return module

    def body(self, name: str) -> _Body:
        """Return the code of a definition."""
        if name not in self._bodies:
            self._bodies[name] = _Body.read(self.statements[name])
        return self._bodies[name]

    def _import(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                self.imports[bound] = Definition(alias.name, ALL)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = self.package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                source = ".".join([*parents, *([source] if source else [])])
            for alias in node.names:
                self.imports[alias.asname or alias.name] = Definition(source, alias.name)


class Code:
    """Source files of some packages.

    Parameters
    ----------
    packages
        Folder of each package, by name; names of other packages are not followed.
    """

    def __init__(self, packages: Mapping[str, Path]) -> None:
        self.packages = dict(packages)
        self._modules: dict[str, _Module | None] = {}
        self._references: dict[Definition, frozenset[Definition]] = {}

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Full names of all modules."""
        return tuple(
            ".".join([package, *file.relative_to(folder).with_suffix("").parts]).removesuffix(
                ".__init__"
            )
            for package, folder in self.packages.items()
            for file in sorted(folder.rglob("*.py"))
        )

    def fingerprint(self) -> str:
        """Hash all files with their names."""
        found = hashlib.sha256()
        for package, folder in self.packages.items():
            for file in sorted(folder.rglob("*.py")):
                text = self.source(file)
                found.update(f"{package} {file.relative_to(folder)} {len(text)} ".encode())
                found.update(text)
        return found.hexdigest()

    def digest(self, roots: Iterable[str], stops: Collection[str] = ()) -> str:
        """Hash all definitions that `roots` reach without passing through `stops`.

        Parameters
        ----------
        roots, stops
            Definitions, each as ``module:name``.
        """
        texts = sorted(self._body(one).text for one in self.reached(roots, stops))
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]

    def reached(self, roots: Iterable[str], stops: Collection[str] = ()) -> frozenset[Definition]:
        """Find the definitions that `roots` reach without passing through `stops`, and the roots.

        Raises
        ------
        LookupError
            If a root or a stop does not exist.
        """
        blocked = {one for stop in stops for one in self._named(stop)}
        waiting = [one for root in roots for one in self._named(root)]
        found = set(waiting)
        while waiting:
            for reference in self._referenced(waiting.pop()):
                if reference not in found and reference not in blocked:
                    found.add(reference)
                    waiting.append(reference)
        return frozenset(found)

    def imports(self, module: str) -> Mapping[str, Definition]:
        """Return the imports of a module by their name there, with the defining modules."""
        read = self._module(module)
        return read.imports if read is not None else {}

    def follow(self, target: Definition) -> tuple[Definition, ...]:
        """Find the definitions of an imported name; none for a name of another package."""
        return tuple(self._resolved(target))

    def source(self, file: Path) -> bytes:
        """Read a file."""
        return file.read_bytes()

    def parsed(self, name: str, package: str, source: bytes) -> _Module:
        """Parse the source of a module."""
        return _Module.read(name, package, source)

    def _named(self, text: str) -> tuple[Definition, ...]:
        found = tuple(self._resolved(Definition.parse(text)))
        if not found:
            raise LookupError(f"nothing is called {text}")
        return found

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            self._modules[name] = self._read(name)
        return self._modules[name]

    def _read(self, name: str) -> _Module | None:
        package, *parts = name.split(".")
        if package not in self.packages:
            return None
        base = self.packages[package].joinpath(*parts)
        for file, parent in (
            (base / "__init__.py", name),
            (base.with_suffix(".py"), name.rpartition(".")[0]),
        ):
            if file.is_file():
                return self.parsed(name, parent, self.source(file))
        return None

    def _resolved(self, target: Definition) -> Iterator[Definition]:
        """Yield the definitions of a name; none if it belongs to another package."""
        module = self._module(target.module)
        if module is None:
            return
        if target.name == ALL:
            yield from (Definition(module.name, name) for name in module.statements)
            if module.package == module.name:  # a package exports its imports
                for one in module.imports.values():
                    if one.module != module.name and one.name != ALL:
                        yield from self._resolved(one)
        elif target.name in module.statements:
            yield target
        elif module.imports.get(target.name, target) != target:
            yield from self._resolved(module.imports[target.name])
        elif self._module(f"{target.module}.{target.name}") is not None:
            yield from self._resolved(Definition(f"{target.module}.{target.name}", ALL))

    def _referenced(self, definition: Definition) -> frozenset[Definition]:
        if definition not in self._references:
            self._references[definition] = frozenset(self._read_references(definition))
        return self._references[definition]

    def _read_references(self, definition: Definition) -> Iterator[Definition]:
        module = self._module(definition.module)
        assert module is not None, "it has been resolved"
        if EFFECTS in module.statements:
            yield Definition(module.name, EFFECTS)
        for name, attribute in self._body(definition).names:
            yield from self._meant(module, name, attribute)

    def _meant(self, module: _Module, name: str, attribute: str) -> Iterator[Definition]:
        """Yield the definitions that ``name.attribute`` in `module` refers to.

        `attribute` is empty for a bare name.
        """
        if name in module.statements:
            yield Definition(module.name, name)
        elif name in module.imports:
            target = module.imports[name]
            submodule = f"{target.module}.{target.name}"
            if target.name == ALL or self._module(submodule) is None:
                yield from self._resolved(target)
            else:
                yield from self._resolved(Definition(submodule, attribute or ALL))

    def _body(self, definition: Definition) -> _Body:
        module = self._module(definition.module)
        assert module is not None, "it has been resolved"
        return module.body(definition.name)


@dataclass(frozen=True)
class _Body:
    """Code of a definition."""

    text: str
    """Syntax tree as text, the same for all Python versions that parse it equally."""
    names: frozenset[tuple[str, str]]
    """All names in the code, each with the attribute that is read from it, or empty."""

    @classmethod
    def read(cls, statements: list[ast.stmt]) -> _Body:
        """Read statements without positions, comments and docstrings."""
        parts: list[str] = []
        names: set[tuple[str, str]] = set()

        def visit(node: Any, attribute: str = "") -> None:
            if isinstance(node, list):
                parts.append("[")
                for item in node:
                    visit(item)
                parts.append("]")
            elif not isinstance(node, ast.AST):
                parts.append(repr(node))
            elif not _is_documentation(node):
                if isinstance(node, ast.Name):
                    names.add((node.id, attribute))
                parts.append(type(node).__name__)
                for name in node._fields:
                    value = getattr(node, name, None)
                    if value is not None and value != [] and name not in _IRRELEVANT:
                        parts.append(name)
                        visit(value, node.attr if isinstance(node, ast.Attribute) else "")

        visit(statements)
        return cls(" ".join(parts), frozenset(names))


_IRRELEVANT = frozenset({"ctx", "kind", "type_comment"})
"""Fields of syntax trees that follow from other fields."""


def _is_documentation(node: ast.AST) -> bool:
    """True if a node is a docstring of a module, class, function or field."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _statements(statement: ast.stmt) -> Iterator[ast.stmt]:
    """Yield a statement and those within it."""
    yield statement
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for inner in getattr(statement, name, ()):
            yield from _statements(inner)


def _is_for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)


def _defined_by(statement: ast.stmt) -> list[str]:
    """List the names that a statement defines; :data:`EFFECTS` if it does something else."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return []
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return []
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    names = [
        node.id
        for target in targets
        for node in (target.elts if isinstance(target, ast.Tuple) else [target])
        if isinstance(node, ast.Name)
    ]
    return [name for name in names if name != "__all__"] or ([] if names else [EFFECTS])
