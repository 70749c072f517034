"""The slots of a backbone, and the text that says which mixer goes into which slot.

bimamba                     one mixer in every slot
bimamba@high+flash@low      by group; of the U-Net: high (the finer half of its resolutions), low (the rest), down, up
flash@mid+bimamba           by slot; the part without @ fills the slots that no other part names
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from temporal_zoo.config import ConfigError, nearest
from temporal_zoo.spec import MixerSpec


@dataclass(frozen=True)
class Slots:
    """The slots of a backbone, in the order in which a clip passes them, and named groups of them."""

    names: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def assign(text: str, slots: Slots, chosen: tuple[str, ...] = ()) -> dict[str, MixerSpec]:
    """Slot -> canonical spec, for the slots in `chosen` (all of them if it is empty).

    Raises:
        UnknownMixer: no mixer has that name.
        ConfigError: an unknown option of a mixer, an unknown slot or group, two mixers for one slot at the same rank, a
            part that fills no slot, or a slot without a mixer.
    """
    names, groups = slots.names, slots.groups
    for slot in chosen:
        if slot not in names:
            raise ConfigError(f"no slot is named {slot!r}{nearest(slot, names)}; this network has {', '.join(names)}")
    wanted = [slot for slot in names if slot in (chosen or names)]
    by_rank: list[dict[str, MixerSpec]] = [{}, {}, {}]  # a slot's own name wins over a group, a group over the rest
    for part in text.split("+"):
        spec_text, at, place = part.strip().partition("@")
        spec = MixerSpec.parse(spec_text).canonical()
        if not at:
            rank, places = 2, names
        elif place in groups:
            rank, places = 1, groups[place]
        elif place in names:
            rank, places = 0, (place,)
        else:
            known = [*groups, *names]
            raise ConfigError(f"{part!r} names no slot{nearest(place, known)}; choose from {', '.join(known)}")
        if not set(places) & set(wanted):
            raise ConfigError(
                f"{part!r} fills no slot: this network has {', '.join(wanted)}; name one of these, or choose others "
                f"as in --set model.slots={','.join(places)}"
            )
        for slot in places:
            if slot in by_rank[rank]:
                raise ConfigError(f"{text!r} puts two mixers into {slot!r}: {by_rank[rank][slot]} and {spec}")
            by_rank[rank][slot] = spec
    filled = by_rank[2] | by_rank[1] | by_rank[0]
    if empty := [slot for slot in wanted if slot not in filled]:
        raise ConfigError(f"{text!r} puts no mixer into {', '.join(empty)}; add a part without @, such as +identity")
    return {slot: filled[slot] for slot in wanted}
