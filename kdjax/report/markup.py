"""The markup of a report: the document, its style, and its tables."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 1120px;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.about { color: #666; margin-top: .2rem; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.card { border: 1px solid #ddd; border-radius: 6px; padding: .6rem 1rem; min-width: 8rem; }
.card b { display: block; font-size: 1.3rem; } .card span { color: #666; font-size: .85rem; }
svg, img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #eee;
  vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .82rem; }
summary { cursor: pointer; font-weight: 600; }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """A page of HTML; parts that are empty are left out."""
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}: kdjax</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; what is a number, or looks like one, stands to the right."""
    first = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = []
    for row in rows:
        cells = "".join(
            f'<td class="{"number" if _is_number(cell) else ""}">{html.escape(str(cell))}</td>'
            for cell in row
        )
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="wide"><table><tr>{first}</tr>{"".join(lines)}</table></div>'


def _is_number(cell: object) -> bool:
    return str(cell)[:1].isdigit() and not any(c.isalpha() for c in str(cell).replace("e", ""))


def number(value: float | None, *, percent: bool = False) -> str:
    """A number as text, '-' for None."""
    if value is None:
        return "-"
    if percent:
        return f"{100 * value:.2f} %"
    return str(value) if isinstance(value, int) else f"{value:.5g}"
