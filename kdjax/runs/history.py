"""The metrics of a run as a table: a row per epoch, a column per metric."""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from kdjax.errors import UserError

if TYPE_CHECKING:
    import pandas


class History(Sequence[dict[str, float]]):
    """The rows of `metrics.jsonl`, one per epoch.

        history = kdjax.load_run("runs/mcl").history()
        history["mean/top1"]    # float64 [epochs], NaN where an epoch has no such metric
        history[-1]             # the last epoch, {'step': ..., 'epoch': ..., 'train/loss': ...}
        history.to_pandas()

    Jupyter shows it as a table.

    Args:
      rows: a mapping per epoch, from metric to number.
    """

    def __init__(self, rows: Sequence[Mapping[str, float]]):
        self._rows = [dict(row) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self._rows)

    @overload
    def __getitem__(self, key: str) -> np.ndarray: ...
    @overload
    def __getitem__(self, key: int) -> dict[str, float]: ...
    @overload
    def __getitem__(self, key: slice) -> History: ...
    def __getitem__(self, key: str | int | slice) -> np.ndarray | dict[str, float] | History:
        """A column by its name, a row by its number, or the history of a slice of the epochs.

        Raises:
          UserError: no row has a metric of that name.
        """
        if isinstance(key, slice):
            return History(self._rows[key])
        if not isinstance(key, str):
            return self._rows[key]
        if key not in self.columns:
            raise UserError(f"there is no metric {key!r}; there are {', '.join(self.columns)}")
        return np.array([row.get(key, np.nan) for row in self._rows], np.float64)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of all metrics, in the order in which they first occur."""
        return tuple(dict.fromkeys(name for row in self._rows for name in row))

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a `pandas.DataFrame`.

        Raises:
          UserError: pandas is not installed.
        """
        if importlib.util.find_spec("pandas") is None:
            raise UserError("history.to_pandas() needs pandas: pip install pandas")
        import pandas

        return pandas.DataFrame(self._rows, columns=list(self.columns))

    def __repr__(self) -> str:
        return f"History of {len(self)} epochs: {', '.join(self.columns)}"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{_text(row.get(n))}</td>" for n in self.columns) + "</tr>"
            for row in self._rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4g}"
