"""``avocado data show``: the very text that a model is trained on, and what it learns of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from avocado.cli.output import Output, with_output
from avocado.data.record import LEARNT_BY, SINGULAR
from avocado.errors import Refused

if TYPE_CHECKING:
    from rich.text import Text

    from avocado.data.chat import ChatTemplate
    from avocado.data.preview import Role, Shown
    from avocado.data.record import Record
    from avocado.data.rejection import Rejection

STYLES: Final[dict[Role, str]] = {
    "context": "dim",
    "trained": "green",
    "stop": "bold reverse green",
}
OPEN, CLOSE = "⟦", "⟧"
"""Around what is learnt, where there are no colours."""
BOUNDARY: Final = "▏"

_UNSEEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


@click.command("show")
@click.argument("source")
@click.option("--row", type=click.IntRange(1), help="Only the row of this number, from 1.")
@click.option("--limit", type=click.IntRange(1), default=3, show_default=True, help="Rows shown.")
@click.option("--tokens", is_flag=True, help="Show where each token begins.")
@click.option("--base", default="seedling", show_default=True, help="Whose template and tokens.")
@click.option(
    "--method",
    type=click.Choice(tuple(LEARNT_BY)),
    help="What the data is to serve; else what it is by nature.",
)
@click.option("--shape", help="The rows' form, where it should not be detected.")
@click.option("--split", default="train", show_default=True, help="Of folders and data sets.")
@with_output
def show(
    out: Output,
    source: str,
    row: int | None,
    limit: int,
    tokens: bool,
    base: str,
    method: str | None,
    shape: str | None,
    split: str,
) -> None:
    """Show rows of SOURCE (a file, a folder or hf://owner/name) as the model is trained on them.

    What it only sees is dim, what it learns to say is green, the token that ends its turn stands
    out. Where there are no colours, what it learns stands in ⟦…⟧. A row that would be rejected
    says why.
    """
    from pathlib import Path

    from avocado.data.chat import ChatTemplate
    from avocado.data.intake import Intake
    from avocado.data.sources import Source
    from avocado.train.base import resolve

    template = ChatTemplate.load(resolve(base, Path.cwd()).folder)
    kind = None if method is None else LEARNT_BY[method]
    intake = Intake([Source(source, shape=shape, split=split)], kind)
    wanted = (item for item in intake if row is None or item.row == row)
    found = list(islice(wanted, limit))
    if not found:
        raise Refused(f"{source} has no row {row}")
    values = []
    for item in found:
        value, drawn = _row(item, template)
        values.append(value)
        if not out.json:
            _print(out, value, drawn, tokens=tokens)
    if out.json:
        out.result(values)


def _row(
    item: Record | Rejection, template: ChatTemplate
) -> tuple[dict[str, Any], list[Shown] | None]:
    """A row as JSON, and its sequences; None where it has none."""
    from avocado.data.chat import RenderError
    from avocado.data.preview import preview
    from avocado.data.rejection import Rejection

    value: dict[str, Any] = {"file": item.file, "row": item.row}
    if isinstance(item, Rejection):
        return {**value, "rejected": item.reason, "detail": item.detail}, None
    value |= {"kind": SINGULAR[type(item)], "language": item.language, "license": item.licence}
    try:
        shown = preview(item, template)
    except RenderError as error:
        return {**value, "rejected": "not renderable", "detail": str(error)}, None
    return {**value, "sequences": [each.to_json() for each in shown]}, shown


def _print(out: Output, value: dict[str, Any], shown: list[Shown] | None, *, tokens: bool) -> None:
    where = f"{value['file']}, row {value['row']}"
    if shown is None:
        out.say(f"{where}: rejected, {value['rejected']}: {value['detail']}\n")
        return
    about = " · ".join((value["kind"], value["language"], value["license"]))
    out.say(f"{where} · {about}")
    for number, each in enumerate(shown, 1):
        of = f" (sequence {number} of {len(shown)})" if len(shown) > 1 else ""
        out.say(f"{each.tokens:,} tokens, {each.trained:,} trained{of}\n")
        if sys.stdout.isatty():
            from rich.console import Console

            Console(highlight=False).print(coloured(each, tokens=tokens), soft_wrap=True)
        else:
            out.say(marked(each, tokens=tokens))
        out.say()


def coloured(shown: Shown, *, tokens: bool = False) -> Text:
    """A sequence for a terminal."""
    from rich.text import Text

    drawn = Text()
    for piece in shown.pieces:
        for text in piece.tokens:
            if tokens and text:
                drawn.append(BOUNDARY, "cyan")
            drawn.append(visible(text), STYLES[piece.role])
    return drawn


def marked(shown: Shown, *, tokens: bool = False) -> str:
    """A sequence as plain text: what is learnt stands between marks."""

    def parts() -> Iterator[str]:
        learning = False
        for piece in shown.pieces:
            if (piece.role != "context") != learning:
                learning = not learning
                yield OPEN if learning else CLOSE
            for text in piece.tokens:
                yield (BOUNDARY if tokens and text else "") + visible(text)
        yield CLOSE if learning else ""

    return "".join(parts())


def visible(text: str) -> str:
    """``text`` without signs that a terminal obeys or hides: data must not move the cursor."""
    return _UNSEEN.sub(lambda match: f"<U+{ord(match[0]):04X}>", text)
