"""The leaves of a tree by their paths: the '/'-joined keys, as in 'stage1_block0/conv1/kernel'."""

from __future__ import annotations

import collections
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of any pytree by their paths, in the tree's order.

    The attribute that holds the array of a variable of flax.nnx is no part of its path, which is
    'conv/kernel' in an `nnx.State` with and without variables.

    Raises:
      ValueError: two leaves with the same path, as of the keys 'a/b' and 'a', 'b'.
    """
    arrays: dict[str, Any] = {}
    for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True):
        if path in arrays:
            raise ValueError(f"two arrays have the path {path!r}")
        arrays[path] = leaf
    return arrays


def paths(tree: Any) -> list[str]:
    """The paths of the leaves of any pytree, as `leaves` has them, in the tree's order."""
    keys_of_leaves = [keys for keys, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    siblings = collections.Counter(keys[:-1] for keys in keys_of_leaves)

    def path(keys: tuple[Any, ...]) -> str:
        is_variable = keys[1:] and keys[-1] == _VALUE and siblings[keys[:-1]] == 1
        keys = keys[:-1] if is_variable else keys
        return jax.tree_util.keystr(keys, simple=True, separator="/")

    return [path(keys) for keys in keys_of_leaves]


_VALUE = jax.tree_util.GetAttrKey("value")


def matching(paths: Sequence[str], patterns: Iterable[str], what: str) -> list[str]:
    """The paths that match one of the patterns, in the order of the paths.

    Raises:
      ValueError: a pattern (called `what` in the message) that matches none of them.
    """
    if isinstance(patterns, str):
        raise ValueError(f"{what}s must be a list of strings, got {patterns!r}")
    found: set[str] = set()
    for pattern in patterns:
        matching = [path for path in paths if _regex(pattern).fullmatch(path)]
        if not matching:
            raise ValueError(
                f"{what} {pattern!r} matches no kernel; there are {', '.join(paths[:4])}, ..."
            )
        found.update(matching)
    return [path for path in paths if path in found]


_WILDCARDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@functools.cache
def _regex(pattern: str) -> re.Pattern[str]:
    def translated(token: re.Match[str]) -> str:
        text = token[0]
        if len(text) > 2 and text.startswith("["):
            return text.replace("[!", "[^", 1)
        return _WILDCARDS.get(text) or re.escape(text)

    return re.compile(re.sub(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]|.", translated, pattern))


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dicts whose leaves have these paths."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree
