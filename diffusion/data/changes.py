"""Compares two states of a set of videos: for a stale cache, and for a run that is resumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def several_rates(rates: Iterable[float]) -> str | None:
    """A warning for videos whose frames per second differ by more than 2 %, or None."""
    counts: dict[str, int] = {}
    rates = sorted(rates)
    if not rates or rates[-1] <= 1.02 * rates[0]:
        return None
    for rate in rates:
        counts[f"{rate:.4g}"] = counts.get(f"{rate:.4g}", 0) + 1
    most = sorted(counts, key=lambda rate: -counts[rate])
    listed = ", ".join(f"{rate} in {counts[rate]}" for rate in most[:_SHOWN])
    more = f" and {len(most) - _SHOWN} more" if len(most) > _SHOWN else ""
    return (
        f"several frame rates: {listed}{more} of {len(rates)} videos; data.stride counts frames, so clips of "
        "these videos span different times; to avoid this, convert the videos to one rate"
    )


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
