"""Reading one YAML 1.2 file into plain values, with the line of every key and item.

Only what a configuration needs is accepted: one document, a mapping at the top, string keys, each once.
Anchors, aliases, merge keys and tags are refused; so a file is as large as it looks and constructs nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from catalog.errors import Path as FieldPath
from catalog.errors import Problem, show

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32

_PREFIX = "tag:yaml.org,2002:"
_TIMESTAMP = _PREFIX + "timestamp"
_SCALARS = {_PREFIX + name for name in ("null", "bool", "int", "float", "str")}


@dataclass(frozen=True)
class Document:
    """The values of one file, and the 1-based line of each: `lines[("scaling", "max")] == 7`.

    What `unread` leads to was refused, with a problem of its own, and is None or missing in `data`.
    """

    data: dict[str, Any]
    lines: dict[FieldPath, int]
    unread: frozenset[FieldPath] = frozenset()

    def line(self, path: FieldPath) -> int:
        """The line of the value, or of the nearest mapping or list around it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(path: Path, label: str) -> tuple[Document | None, list[Problem]]:
    """Read a file; `label` is what problems call it. No document: nothing that could be validated."""
    try:
        text = path.read_bytes()
    except OSError as error:
        return None, [Problem(label, 1, "", f"cannot be read: {error.strerror}")]
    if len(text) > MAX_BYTES:
        return None, [Problem(label, 1, "", f"is {len(text)} bytes large: must be at most {MAX_BYTES}")]
    yaml = YAML(typ="safe", pure=True)
    try:
        content = text.decode("utf-8")
        # Composing is recursive, parsing is not: depth is refused before it can exhaust the stack.
        depth = 0
        for event in yaml.parse(content):
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1
                return None, [
                    Problem(label, line, "", f"is nested too deeply: must be at most {MAX_DEPTH} levels")
                ]
        root = yaml.compose(content)
    except UnicodeDecodeError as error:
        return None, [Problem(label, 1, "", f"is not UTF-8 text: byte {error.start} cannot be decoded")]
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return None, [Problem(label, line, "", f"is not valid YAML: {_one_line(error.problem)}")]
    except YAMLError as error:
        return None, [Problem(label, 1, "", f"is not valid YAML: {_one_line(str(error))}")]
    if not isinstance(root, MappingNode):
        found = "is empty" if root is None else "is not a mapping"
        return None, [Problem(label, 1, "", f"{found}: must be one YAML mapping of keys to values")]
    reader = _Reader(label, yaml)
    data = reader.value(root, ())
    return Document(data, reader.lines, frozenset(reader.unread)), reader.problems


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


class _Reader:
    def __init__(self, label: str, yaml: YAML) -> None:
        self.label = label
        self.lines: dict[FieldPath, int] = {}
        self.problems: list[Problem] = []
        self.unread: set[FieldPath] = set()
        self._yaml = yaml

    def value(self, node: Node, path: FieldPath) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if node.anchor is not None:
            return self._refuse(node, path, "anchors and aliases are not supported: write the value out")
        if isinstance(node, MappingNode) and node.tag == _PREFIX + "map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and node.tag == _PREFIX + "seq":
            return [self.value(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag == _TIMESTAMP:
            return (
                node.value
            )  # no field is a date: one written without quotes is still the text it looks like
        if isinstance(node, ScalarNode) and node.tag in _SCALARS:
            try:
                return self._yaml.constructor.construct_object(node)
            except ValueError:  # a number of thousands of digits
                return self._refuse(
                    node, path, f"{show(node.value)} cannot be read: must be a shorter number"
                )
        return self._refuse(node, path, f"the tag {node.tag!r} is not supported: remove it")

    def _mapping(self, node: MappingNode, path: FieldPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, ScalarNode) or key.anchor is not None or key.tag != _PREFIX + "str":
                self._refuse(
                    key, path, f"{_key(key)} is not a plain text key: must be a name, in quotes if need be"
                )
                continue
            here = (*path, key.value)
            if key.value in result:
                first = self.lines[here]
                self._refuse(key, here, f"duplicate key {key.value!r}: already given in line {first}")
                continue
            self.lines[here] = key.start_mark.line + 1
            result[key.value] = self.value(child, here)
        return result

    def _refuse(self, node: Node, path: FieldPath, message: str) -> None:
        self.unread.add(path)
        self.problems.append(Problem.at(self.label, node.start_mark.line + 1, path, message))


def _key(node: Node) -> str:
    return show(node.value) if isinstance(node, ScalarNode) else "a list or mapping"
