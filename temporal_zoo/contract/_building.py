"""How a mixer is made, saved, copied and configured."""

from __future__ import annotations

import copy
import json

import torch

from temporal_zoo.config import ConfigError, hints
from temporal_zoo.contract._probe import ContractError, Make, awake, require, same


def check_meta(make: Make) -> None:
    """It can be built and run on the meta device, so that sizes and memory can be planned without any."""
    with torch.device("meta"):
        mixer = make()
        x = torch.empty(3, 7, mixer.dim, requires_grad=True)
        lengths = torch.empty(3, dtype=torch.int64)
    for name, tensor in [*mixer.named_parameters(), *mixer.named_buffers()]:
        require(tensor.is_meta, f"{name} takes memory on the meta device: large networks could not be planned")
    for real in (None, lengths):
        y = mixer(x, real)
        require(y.is_meta and y.shape == x.shape, f"on the meta device {tuple(x.shape)} became {tuple(y.shape)}")
        y.sum().backward()


def check_state(make: Make) -> None:
    """A state dict, a deep copy and the configuration as a dictionary each bring back the same mixer."""
    mixer = awake(make)
    x = torch.randn(2, 7, mixer.dim)
    loaded, copied = make().eval(), copy.deepcopy(mixer)
    loaded.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        same(loaded(x), mixer(x), "a state dict does not bring the mixer back: a checkpoint would not resume the run")
        same(copied(x), mixer(x), "a deep copy computes something else: an averaged network (EMA) would be wrong")
        before = mixer(x)
        for parameter in copied.parameters():
            parameter.add_(1)
        same(mixer(x), before, "a deep copy shares parameters: averaging weights would change the trained ones")
    config = mixer.config
    again = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    require(
        again == config, f"{config} comes back from its dictionary as {again}: a checkpoint would rebuild another mixer"
    )
    unknown = set(mixer.no_decay) - {name for name, _ in mixer.named_parameters()}
    require(not unknown, f"no_decay names {', '.join(sorted(unknown))}, which are no parameters: they would be decayed")


def check_declarations(make: Make) -> None:
    """With its default options a mixer is what its class declares, so that `names` can filter without building any."""
    mixer = make()
    if mixer.config != type(mixer.config)():
        return
    for name in ("causal", "order_blind", "passes"):
        declared, actual = getattr(type(mixer), name, None), getattr(mixer, name, None)
        require(
            declared == actual,
            f"the class declares {name} = {declared} and the mixer says {actual}: `names` would list it wrongly",
        )


def check_options(make: Make) -> None:
    """Options that do not exist and values of a wrong type are refused by name."""
    kind = type(make().config)
    wrong = {"no_such_option": lambda name: kind.from_dict({name: 1})}
    wrong |= dict.fromkeys(hints(kind), lambda name: kind(**{name: object()}))
    for name, attempt in wrong.items():
        try:
            attempt(name)
        except ConfigError as refusal:
            require(name in str(refusal), f"the refusal of {name} does not name it: {refusal}")
        else:
            raise ContractError(f"a wrong {name} is accepted: a mistyped experiment would run as another one")
