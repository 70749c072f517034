"""What the text of a mixer means in files: with every option written out, so that no later default changes it.

Texts are those of `diffusion.model.slots`, such as "bimamba:state=8" or "bimamba+flash:heads=4@mid".  Users write the
options that matter to them; checkpoints hold all of them (`explicit`), keys of ablations what differs from `SILENT`.
"""

from __future__ import annotations

from collections.abc import Callable

from temporal_zoo.registry import get
from temporal_zoo.spec import MixerSpec

# What files of commit 84bfd00 mean by an option that they do not write.  Never change a value.  When a mixer gets a new
# option, add the value with which it computes what it did before.
SILENT = {
    "attn": {"heads": "8", "features": "64", "rotary": "yes", "relative_bias": "no"},
    "bimamba": {
        "state": "16", "conv": "4", "expand": "2", "dt_rank": "inner", "projection_bias": "yes", "merge": "sum",
        "backward_dt": "spread",
    },
    "flash": {"heads": "8", "features": "64", "rotary": "yes", "relative_bias": "no"},
    "identity": {},
    "mamba": {"state": "16", "conv": "4", "expand": "2", "dt_rank": "inner", "projection_bias": "yes"},
    "s4d": {
        "state": "16", "init": "lin", "discretisation": "zoh", "bidirectional": "yes", "glu": "yes", "merge": "sum",
        "mlp": "0", "mlp_gelu": "no",
    },
}  # fmt: skip
# And by a flavour.
FLAVOURS = {
    "bimamba": {
        "paper": "dt_rank=inner:projection_bias=yes:merge=sum:backward_dt=spread",
        "vim": "dt_rank=dim:projection_bias=no:merge=mean:backward_dt=generic",
    },
    "mamba": {"paper": "dt_rank=inner:projection_bias=yes", "literal": "dt_rank=dim:projection_bias=no"},
    "s4d": {
        "glu": "state=16:glu=yes:merge=sum:mlp=0",
        "mlp": "state=16:glu=no:merge=concat:mlp=512:mlp_gelu=yes",
        "v1": "state=512:glu=yes:merge=sum:mlp=512",
    },
}


def explicit(text: str) -> str:
    """The text with every option of every mixer written out, in the order of its `Config`."""
    return _rewritten(text, MixerSpec.explicit)


def short(text: str) -> str:
    """The text as people write it: without options that have their defaults."""
    return _rewritten(text, MixerSpec.canonical)


def as_first_meant(text: str) -> str:
    """The text of a file of commit 84bfd00 with the options that it left out written as they were then."""
    return _rewritten(text, lambda spec: MixerSpec(spec.name, tuple((_silent(spec) | _written(spec)).items())))


def key(text: str) -> str:
    """The text with the options that it does not write and that are not as in `SILENT` added.

    So the text names one computation for ever, and texts that commit 84bfd00 used as keys are keys still.
    """

    def added(spec: MixerSpec) -> MixerSpec:
        present = get(spec.name).mixer.Config.with_present_names
        silent, written = present(_silent(spec)), present(dict(spec.options))
        more = {
            name: value for name, value in spec.explicit().options if name not in written and silent.get(name) != value
        }
        return MixerSpec(spec.name, spec.options + tuple(more.items()))

    return _rewritten(text, added)


def _rewritten(text: str, rewrite: Callable[[MixerSpec], MixerSpec]) -> str:
    parts = []
    for part in text.split("+"):
        spec, at, place = part.strip().partition("@")
        parts.append(f"{rewrite(MixerSpec.parse(spec))}{at}{place}")
    return "+".join(parts)


def _silent(spec: MixerSpec) -> dict[str, str]:
    """What a spec means by the options that it does not write; empty for mixers that this table does not know."""
    silent = SILENT.get(spec.name, {})
    flavour = FLAVOURS.get(spec.name, {}).get(dict(spec.options).get("flavour", ""))
    return silent | dict(MixerSpec.parse(f"{spec.name}:{flavour}").options) if flavour else silent


def _written(spec: MixerSpec) -> dict[str, str]:
    """The options of a spec; its flavour stands in `_silent`, where that is known."""
    known = FLAVOURS.get(spec.name, {})
    return {name: value for name, value in spec.options if not (name == "flavour" and value in known)}
