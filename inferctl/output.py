"""What commands print: results on standard output, progress and remarks on standard error.

On a terminal Rich draws tables and live progress (NO_COLOR is respected); anywhere else the same words are
plain lines, and with `--json` a result is one JSON document.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

Cells = Sequence[object]

_STYLES = {"done": "green", "failed": "bold red", "working": "cyan", "waiting": "dim"}
_SIGNS = {"done": "✓", "failed": "✗", "waiting": "·"}


class Output:
    """Where a command's result goes, and in which form."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)

    def result(self, document: Any, *human: RenderableType) -> None:
        """Print the document with `--json`, else what stands for it."""
        if self.as_json:
            print(json.dumps(document, ensure_ascii=False, allow_nan=False), flush=True)
            return
        for part in human:
            self._out.print(part)

    def note(self, text: str) -> None:
        """A remark to the person at the keyboard; never part of the result."""
        self._err.print(text, markup=False)

    def error(self, message: str, document: Any) -> None:
        """Why a command failed."""
        if self.as_json:
            print(json.dumps(document, ensure_ascii=False), file=sys.stderr, flush=True)
        else:
            self._err.print(Text("Error: ", style="bold red").append(Text(message, style="default")))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Cells]) -> RenderableType:
        """A table; without a terminal, aligned columns and nothing else."""
        texts = [[str(cell) for cell in row] for row in rows]
        if not self._out.is_terminal:
            widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
            lines = (
                "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
                for row in (columns, *texts)
            )
            return Text("\n".join(lines))
        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in texts:
            table.add_row(*(escape(cell) for cell in row))
        return table

    def board(self, title: str) -> "Board":
        """Progress of several things at once, on standard error."""
        return Board(self._err, title)


@dataclass
class _Item:
    state: str
    detail: str = ""
    started: float = field(default_factory=time.monotonic)
    seconds: float | None = None


class Board(AbstractContextManager["Board"]):
    """Lines of progress, each with a name, a state and a detail. States: waiting, working, done, failed.

    Updates may come from any thread.
    """

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._items: dict[str, _Item] = {}
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8, transient=False)
        self._spinner = Spinner("dots")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._console.print(self._title, markup=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, name: str, state: str, detail: str = "") -> None:
        """Say how far `name` is."""
        item = self._items.setdefault(name, _Item("waiting"))
        changed = item.state != state
        if state == "working" and item.state == "waiting":
            item.started = time.monotonic()
        if state in ("done", "failed") and item.seconds is None:
            item.seconds = time.monotonic() - item.started
        item.state, item.detail = state, detail
        if changed and state != "waiting" and not self._console.is_terminal:
            took = f" ({item.seconds:.1f} s)" if item.seconds is not None else ""
            self._console.print(f"{state:8} {name}{took} {detail}".rstrip(), markup=False)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Work that is done when the block ends, and failed when it raises."""
        self.update(name, "working")
        try:
            yield
        except BaseException:
            self.update(name, "failed")
            raise
        self.update(name, "done")

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        for name, item in list(self._items.items()):
            style = _STYLES[item.state]
            sign: RenderableType = (
                self._spinner if item.state == "working" else Text(_SIGNS[item.state], style)
            )
            seconds = item.seconds if item.state != "working" else time.monotonic() - item.started
            took = f"{seconds:.1f} s" if seconds is not None else ""
            table.add_row(
                sign, Text(name, style), Text(took, "dim", justify="right"), Text(item.detail, "dim")
            )
        return Group(Text(self._title, "bold"), table)
