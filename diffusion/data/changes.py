"""Compares two states of a set of videos: for a stale cache, and for a run that is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_SHOWN = 3  # names of each kind in a message


@dataclass(frozen=True)
class Changes:
    """Names that were added, removed or changed; false if there are none.  As text: counts and some names."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @classmethod
    def between(cls, before: Mapping[str, str], now: Mapping[str, str]) -> Self:
        """Compares two states, which map names to digests or to other texts that change with the contents.

        An empty digest means unknown contents; such a name counts as unchanged.
        """
        changed = (name for name, digest in now.items() if digest and before.get(name) and before[name] != digest)
        return cls(
            tuple(name for name in now if name not in before),
            tuple(name for name in before if name not in now),
            tuple(changed),
        )

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        kinds = {"added": self.added, "removed": self.removed, "changed": self.changed}
        return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds.items() if names)


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
