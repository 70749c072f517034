"""Texts of mixers in files, with options written out so that a later default does not change their meaning.

Texts have the form of `diffusion.model.slots`, such as "bimamba:state=8" or "bimamba+flash:heads=4@mid".  Users write
some options; checkpoints hold all options (`explicit`), and keys of ablations hold those that differ from `SILENT`.
"""

from __future__ import annotations

from collections.abc import Callable

from temporal_zoo.registry import get
from temporal_zoo.spec import MixerSpec

# The values that options had at commit 84bfd00, when files left them out.  Never change a value.  When a mixer gets a
# new option, add the value with which the mixer computes the same as before.
SILENT = {
    "attn": {"heads": "8", "features": "64", "rotary": "yes", "relative_bias": "no"},
    "bimamba": {
        "state": "16", "conv": "4", "expand": "2", "dt_rank": "inner", "projection_bias": "yes", "merge": "sum",
        "backward_dt": "spread", "core": "s6",
    },
    "bigs": {"core": "s4d", "state": "16", "width": "0"},
    "conv": {"width": "7"},
    "flash": {"heads": "8", "features": "64", "rotary": "yes", "relative_bias": "no"},
    "gatedlin": {"heads": "8", "features": "64", "rotary": "yes", "numerator": "relu"},
    "gss": {"core": "s4d", "state": "16", "width": "0"},
    "identity": {},
    "linattn": {"heads": "8", "features": "64", "rotary": "yes"},
    "mamba": {
        "state": "16", "conv": "4", "expand": "2", "dt_rank": "inner", "projection_bias": "yes", "core": "s6",
    },
    "mean": {},
    "mesa": {"heads": "8", "features": "64", "rotary": "yes"},
    "s4d": {
        "state": "16", "init": "lin", "discretisation": "zoh", "bidirectional": "yes", "glu": "yes", "merge": "sum",
        "mlp": "0", "mlp_gelu": "no",
    },
}  # fmt: skip
# The options that flavours meant at that commit.
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
    """The text with all options of all mixers, in the order of their `Config`."""
    return _rewritten(text, MixerSpec.explicit)


def short(text: str) -> str:
    """The text without options that have their defaults, as users write it."""
    return _rewritten(text, MixerSpec.canonical)


def as_first_meant(text: str) -> str:
    """The text of a file of commit 84bfd00, with the values that the options had then."""
    return _rewritten(text, lambda spec: MixerSpec(spec.name, tuple((_silent(spec) | _written(spec)).items())))


def key(text: str) -> str:
    """The text, plus the options that it leaves out and whose values differ from `SILENT`.

    This text always names the same computation, and it equals the keys that commit 84bfd00 wrote.
    """

    def complete(spec: MixerSpec) -> MixerSpec:
        present = get(spec.name).mixer.Config.with_present_names
        silent, written = present(_silent(spec)), present(dict(spec.options))
        more = {
            name: value for name, value in spec.explicit().options if name not in written and silent.get(name) != value
        }
        return MixerSpec(spec.name, spec.options + tuple(more.items()))

    return _rewritten(text, complete)


def _rewritten(text: str, rewrite: Callable[[MixerSpec], MixerSpec]) -> str:
    parts = []
    for part in text.split("+"):
        spec, at, slot = part.strip().partition("@")
        parts.append(f"{rewrite(MixerSpec.parse(spec))}{at}{slot}")
    return "+".join(parts)


def _silent(spec: MixerSpec) -> dict[str, str]:
    """The values in `SILENT` and `FLAVOURS` of a spec; empty for mixers that these tables lack."""
    silent = SILENT.get(spec.name, {})
    flavour = FLAVOURS.get(spec.name, {}).get(dict(spec.options).get("flavour", ""))
    return silent | dict(MixerSpec.parse(f"{spec.name}:{flavour}").options) if flavour else silent


def _written(spec: MixerSpec) -> dict[str, str]:
    """The options of a spec, without a flavour that `_silent` has resolved."""
    known = FLAVOURS.get(spec.name, {})
    return {name: value for name, value in spec.options if not (name == "flavour" and value in known)}
