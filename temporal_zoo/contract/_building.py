"""Checks of how a mixer is built, saved, copied and configured."""

from __future__ import annotations

import copy
import json

import torch

from temporal_zoo.config import ConfigError, hints
from temporal_zoo.contract._common import ContractError, Make, require, require_same, with_nonzero_weights


def check_meta(make: Make) -> None:
    """The mixer can be built and run on the meta device, so that `zoo plan` can plan sizes and memory."""
    with torch.device("meta"):
        mixer = make()
        x = torch.empty(3, 7, mixer.dim, requires_grad=True)
        lengths = torch.empty(3, dtype=torch.int64)
    for name, tensor in [*mixer.named_parameters(), *mixer.named_buffers()]:
        require(tensor.is_meta, f"{name} takes memory on the meta device: `zoo plan` could not plan large networks")
    for argument in (None, lengths):
        y = mixer(x, argument)
        shapes = f"{tuple(x.shape)} becomes {tuple(y.shape)}"
        require(y.is_meta and y.shape == x.shape, f"on the meta device {shapes}")
        y.sum().backward()


def check_state(make: Make) -> None:
    """A state dict, a deep copy, and the configuration as a dictionary each restore the same mixer."""
    mixer = with_nonzero_weights(make)
    x = torch.randn(2, 7, mixer.dim)
    loaded, copied = make().eval(), copy.deepcopy(mixer)
    loaded.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        require_same(
            loaded(x), mixer(x), "a state dict does not restore the mixer: a checkpoint would not resume the run"
        )
        require_same(copied(x), mixer(x), "a deep copy gives another output: an averaged network (EMA) would be wrong")
        before = mixer(x)
        for parameter in copied.parameters():
            parameter.add_(1)
        require_same(mixer(x), before, "a deep copy shares parameters: averaging weights would change the trained ones")
    config = mixer.config
    again = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    require(again == config, f"the dictionary of {config} gives {again}: a checkpoint would rebuild another mixer")
    unknown = set(mixer.no_decay) - {name for name, _ in mixer.named_parameters()}
    require(
        not unknown,
        f"no_decay has {', '.join(sorted(unknown))}, which are not parameters: weight decay would apply to all",
    )


def check_declarations(make: Make) -> None:
    """With its default options a mixer agrees with the declarations of its class, by which `names` filters."""
    mixer = make()
    if mixer.config != type(mixer.config)():
        return
    for name in ("causal", "order_blind", "passes"):
        declared, actual = getattr(type(mixer), name, None), getattr(mixer, name, None)
        require(
            declared == actual,
            f"the class declares {name} = {declared}, and the mixer has {actual}: `names` would list it wrongly",
        )


def check_options(make: Make) -> None:
    """Unknown options and values of a wrong type raise an error that names the option."""
    kind = type(make().config)
    wrong = {"no_such_option": lambda name: kind.from_dict({name: 1})}
    wrong |= dict.fromkeys(hints(kind), lambda name: kind(**{name: object()}))
    for name, attempt in wrong.items():
        try:
            attempt(name)
        except ConfigError as refusal:
            require(name in str(refusal), f"the error about {name} does not name it: {refusal}")
        else:
            raise ContractError(
                f"a wrong {name} is accepted: an experiment with a typing error would run as another one"
            )
