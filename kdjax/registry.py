"""How methods, networks, data sources, policies, optimizers and jobs are registered by name."""

from __future__ import annotations

import difflib
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from kdjax.errors import UserError

Entry = TypeVar("Entry")


class Origin(NamedTuple):
    """The code that registered an entry.

    Attributes:
      definition: the qualified name of the function or class that was registered.
      place: the file that registered it, or its module where no file holds it (a notebook's cell).
      line: of that file; 0 where no file holds it.
      execution: the file's global names, another dictionary every time that it is executed.
    """

    definition: str
    place: str
    line: int
    execution: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.definition} in {self.place}"

    def may_replace(self, earlier: Origin) -> bool:
        """Whether this is the definition of `earlier`, executed again.

        Two rows of a table in one file are not: they stand on two lines of one execution.
        """
        if (self.definition, self.place) != (earlier.definition, earlier.place):
            return False
        return self.execution is not earlier.execution or self.line == earlier.line


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
        self._origins: dict[str, Origin] = {}

    def add(self, name: str, entry: Entry, definition: Any = None) -> Entry:
        """Registers `entry` as `name`, and returns it.

        A definition that is executed again, as a notebook's cell or a config file that is loaded
        twice, replaces the entry that it registered before.

        Args:
          name: of the entry.
          entry: to be registered.
          definition: the function or class that the entry is made of; None: `entry` itself.

        Raises:
          ValueError: the name is registered already, from another place or for another definition.
        """
        origin = _origin(entry if definition is None else definition)
        earlier = self._origins.get(name)
        if name in self._entries and earlier is not None and not origin.may_replace(earlier):
            raise ValueError(
                f"{self._kind} {name!r} is registered already, for {earlier}; choose another name "
                f"for {origin}"
            )
        self._entries[name], self._origins[name] = entry, origin
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


def _origin(definition: Any) -> Origin:
    """The origin of a definition that kdjax is registering.

    The file is that of the innermost code on the stack that is outside of kdjax or, for what kdjax
    registers of its own, at the top level of a module.
    """
    frame = sys._getframe(2)
    while (
        frame.f_back is not None
        and frame.f_code.co_name != "<module>"
        and frame.f_globals.get("__name__", "").partition(".")[0] == "kdjax"
    ):
        frame = frame.f_back
    file = frame.f_code.co_filename
    is_file = os.path.exists(file)
    place = os.path.realpath(file) if is_file else frame.f_globals.get("__name__", file)
    while isinstance(definition, functools.partial):
        definition = definition.func
    name = getattr(definition, "__qualname__", type(definition).__qualname__)
    return Origin(name, place, frame.f_lineno if is_file else 0, frame.f_globals)


def joined(names: Iterable[object]) -> str:
    """Names as a sentence has them: `'a' or 'b'`."""
    return " or ".join(repr(name) for name in names)
