"""The named places of a U-Net that hold a temporal mixer, and the text that says which mixer goes where.

bimamba                     one mixer in every slot
bimamba@high+flash@low      by group: high = the finer half of the levels, low = the rest; down, up: the two sides
flash@mid+bimamba           by name, and one part without @ for all that no other part claims
"""

from __future__ import annotations

from temporal_zoo.config import ConfigError, nearest
from temporal_zoo.spec import MixerSpec


def slot_names(levels: int) -> list[str]:
    """All slots of a U-Net with `levels` levels, in the order in which a clip passes them."""
    return ["stem", *(f"down{i}" for i in range(levels)), "mid", *(f"up{i}" for i in range(levels))]


def slot_level(slot: str, levels: int) -> int:
    """The level at which a slot works: 0 is full resolution, `levels - 1` the coarsest."""
    if slot == "stem":
        return 0
    if slot == "mid":
        return levels - 1
    number = int(slot.lstrip("downup"))
    return number if slot.startswith("down") else levels - 1 - number


def assign(text: str, levels: int, chosen: tuple[str, ...] = ()) -> dict[str, MixerSpec]:
    """Slot -> canonical spec, for the slots in `chosen` (none: all of them).

    Raises:
        UnknownMixer: no such mixer.
        ConfigError: an option that a mixer does not have, a slot or group that does not exist, one slot claimed twice
            at the same rank, a part that fills no slot, or a slot left empty.
    """
    every = slot_names(levels)
    for slot in chosen:
        if slot not in every:
            raise ConfigError(
                f"no slot is named {slot!r}{nearest(slot, every)}; with {levels} levels there are {', '.join(every)}"
            )
    groups = {
        "high": [s for s in every if slot_level(s, levels) < (levels + 1) // 2],
        "low": [s for s in every if slot_level(s, levels) >= (levels + 1) // 2],
        "down": [s for s in every if s.startswith(("stem", "down"))],
        "up": [s for s in every if s.startswith("up")],
    }
    wanted = [slot for slot in every if slot in (chosen or every)]
    by_rank: list[dict[str, MixerSpec]] = [{}, {}, {}]  # a slot's own name wins over a group, a group over the rest
    for part in text.split("+"):
        spec_text, at, place = part.strip().partition("@")
        spec = MixerSpec.parse(spec_text).canonical()
        if not at:
            rank, places = 2, every
        elif place in groups:
            rank, places = 1, groups[place]
        elif place in every:
            rank, places = 0, [place]
        else:
            known = [*groups, *every]
            raise ConfigError(f"{part!r} names no slot{nearest(place, known)}; there are {', '.join(known)}")
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
