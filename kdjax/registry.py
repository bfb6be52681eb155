"""How methods, networks, data sources, policies, optimizers and jobs are registered by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from kdjax.errors import UserError

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name, in the order in which they were registered.

    Args:
      kind: what the entries are, such as 'method', for messages.
      setting: where a user names one, such as 'config.method', for messages.
    """

    def __init__(self, kind: str, setting: str):
        self._kind = kind
        self._setting = setting
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, entry: Entry) -> Entry:
        """Registers `entry` as `name`, and returns it.

        Raises:
          ValueError: the name is taken.
        """
        if name in self._entries:
            raise ValueError(f"{self._kind} {name!r} is registered already")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> Entry:
        """The entry of that name.

        Raises:
          UserError: there is none; the message names the nearest ones.
        """
        if name not in self._entries:
            raise UserError(
                f"{self._setting}={name!r} is unknown; did you mean {joined(self.nearest(name))}?"
            )
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def nearest(self, name: str) -> list[str]:
        """Names that a user may have meant by `name`; all of them where none is near."""
        text = str(name)
        longer = [known for known in self._entries if text and known.startswith(text)]
        return longer or difflib.get_close_matches(text, self._entries, 3, 0.3) or [*self._entries]


def joined(names) -> str:
    """Names as a sentence has them: `'a' or 'b'`."""
    return " or ".join(repr(name) for name in names)
