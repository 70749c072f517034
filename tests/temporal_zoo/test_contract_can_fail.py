"""Each check of the contract refuses a stranger's mixer with the fault that it looks for, and says what that means."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from temporal_zoo import Mixer, StatefulMixer
from temporal_zoo.config import ConfigError, option
from temporal_zoo.contract import CHECKS, ContractError, outcomes
from temporal_zoo.errors import InvalidInput
from temporal_zoo.streaming import State, register_state


class Sums(StatefulMixer):
    """A mixer as somebody else might write one, unregistered: a linear map of the sum of all frames so far."""

    causal = True
    passes = (False,)

    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.map = nn.Linear(dim, dim)

    def mix(self, x, lengths):
        return self.map(x.cumsum(1))

    def mix_chunk(self, x, state, *, reverse=False):
        sums = x.cumsum(1) if state is None else x.cumsum(1) + state
        return self.map(sums), sums[:, -1:]


class Narrow(Sums):
    def mix(self, x, lengths):
        return super().mix(x, lengths)[..., :1]


class FeelsPadding(Sums):
    causal = False

    def mix(self, x, lengths):
        return super().mix(x, lengths) + x.mean(1, keepdim=True)


class TrainsOnPadding(Sums):
    def mix(self, x, lengths):
        mapped = self.map(x)
        return super().mix(x, lengths) + (mapped - mapped.detach()).mean(1, keepdim=True)


class MixesRows(Sums):
    def mix(self, x, lengths):
        return super().mix(x - x.mean(0), lengths)


class Foresees(Sums):
    def mix(self, x, lengths):
        return self.map(x.flip(1).cumsum(1).flip(1))


class ClaimsToForesee(Sums):
    causal = False


class ClaimsToBeBlind(Sums):
    order_blind = True


class IsBlind(Sums):
    def mix(self, x, lengths):
        return self.map(x)


class Wastes(Sums):
    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.unused = nn.Parameter(torch.ones(3))


class Forgets(Sums):
    def mix_chunk(self, x, state, *, reverse=False):
        return super().mix_chunk(x, None)


class ForgetsHistory(Sums):
    def mix_chunk(self, x, state, *, reverse=False):
        return super().mix_chunk(x, None if state is None else state.detach())


class StartsElsewhere(Sums):
    def init_state(self, rows, *, device=None, dtype=None):
        return torch.ones(rows, 1, self.dim)


@register_state
@dataclass(frozen=True)
class Sum(State):
    sums: torch.Tensor


@dataclass(frozen=True)
class Unregistered(State):
    sums: torch.Tensor


class WithState(Sums):
    state = Sum

    def mix_chunk(self, x, state, *, reverse=False):
        y, sums = super().mix_chunk(x, None if state is None else state.sums)
        return y, self.state(sums)


class WithUnregisteredState(WithState):
    state = Unregistered


class MixesStates(WithState):
    def mix_chunk(self, x, state, *, reverse=False):
        y, sums = Sums.mix_chunk(self, x, None if state is None else state.sums.flip(0))
        return y, Sum(sums)


class Rough(Sums):
    def mix(self, x, lengths):
        return super().mix(x, lengths) * (1.5 if torch.is_autocast_enabled("cpu") else 1)


class Counts(Sums):
    calls = 0

    def mix(self, x, lengths):
        self.calls += 1
        return super().mix(x, lengths) * self.calls


class Breaks(Sums):
    def mix(self, x, lengths):
        torch._dynamo.graph_break()
        return super().mix(x, lengths)


class TakesMemory(Sums):
    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.register_buffer("table", torch.zeros(3, device="cpu"))


class LosesState(Sums):
    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.scale = torch.rand(())

    def mix(self, x, lengths):
        return super().mix(x, lengths) * self.scale.to(x.device)


class DecaysByAnOldName(Sums):
    no_decay = ("map.old_name",)


class Rolls(Sums):
    def mix(self, x, lengths):
        return super().mix(x, lengths) + torch.rand_like(x)


class Open(Sums):
    """Without the door of `Mixer.forward`."""

    def forward(self, x, lengths=None):
        return self.mix(x, lengths)


class OpenToFloat64(Open):
    def mix(self, x, lengths):
        return super().mix(x.to(self.map.weight.dtype), lengths).to(x.dtype)


class NeedsRows(Sums):
    def mix(self, x, lengths):
        return super().mix(x, lengths).reshape(x.shape[0], -1, self.dim)


class WidensShort(Sums):
    """Ends in float32 whatever the weights are, behind an open door."""

    def forward(self, x, lengths=None):
        if x.dtype != self.map.weight.dtype:
            raise InvalidInput("no")
        return super().forward(x, lengths).float()


class Endless(Sums):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        rate: float = option(0.5, "checked by itself")

        def __post_init__(self):
            if not isinstance(self.rate, float):
                raise ConfigError(f"Config.rate is {self.rate!r}")


class Lenient(Sums):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        width: int = option(3, "never looked at")

        def __post_init__(self):
            pass


@torch.library.custom_op("test_contract_can_fail::sums", mutates_args=())
def sums(x: torch.Tensor) -> torch.Tensor:
    return x.cumsum(1)


sums.register_fake(torch.empty_like)
sums.register_autograd(lambda ctx, grad: grad.flip(1).cumsum(1).flip(1))


class LosesTangents(Sums):
    def mix(self, x, lengths):
        return self.map(sums(x))


class Cube(torch.autograd.Function):
    """x^3, of whose derivative torch knows no derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.slope = 3 * inputs[0].detach() ** 2
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return ctx.slope * grad

    @staticmethod
    def jvp(ctx, tangent):
        return 3 * ctx.saved_tensors[0].detach() ** 2 * tangent


class CurvesUnseen(Sums):
    def mix(self, x, lengths):
        return self.map(Cube.apply(x.cumsum(1)))


class ReadsWeights(Sums):
    def mix(self, x, lengths):
        return nn.functional.linear(x.cumsum(1), self.map.weight, self.map.bias)


class SkipsHooks(Sums):
    def mix(self, x, lengths):
        return self.map.forward(x.cumsum(1))


class DeclaresLate(Sums):
    causal = False

    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.causal = True


class OffInHalf(Sums):
    def mix(self, x, lengths):
        return super().mix(x, lengths) * (1.5 if self.map.weight.dtype == torch.bfloat16 else 1)


@pytest.mark.parametrize("check", CHECKS)
def test_a_sound_mixer_passes(check):
    CHECKS[check](lambda: Sums(8, Sums.Config()))


@pytest.mark.parametrize(
    ("check", "faulty", "says"),
    [
        ("shapes", Narrow, "no residual can add it"),
        ("padding_values", FeelsPadding, "depend on what else is in the batch"),
        ("padding_gradients", TrainsOnPadding, "padding a clip of 5 frames changes the gradient"),
        ("rows", MixesRows, "leak into each other"),
        ("causality", Foresees, "trained on the answer"),
        ("causality", ClaimsToForesee, "view of the future that it does not have"),
        ("causality", IsBlind, "nothing would connect the frames"),
        ("order", ClaimsToBeBlind, "it is no control"),
        ("order", IsBlind, "cannot tell forwards from backwards"),
        ("gradients", Wastes, "unused is never used"),
        ("chunks", Forgets, "would have seams"),
        ("steps", Forgets, "a live stream would drift"),
        ("chunk_gradients", ForgetsHistory, "would ignore earlier frames"),
        ("states", StartsElsewhere, "a frame that does not exist"),
        ("states", WithUnregisteredState, "not a registered pytree"),
        ("states", MixesStates, "streams of one batch would be mixed up"),
        ("autocast", Rough, "mixed precision would train another model"),
        ("checkpointing", Counts, "saving memory would change the result"),
        ("compile", Breaks, "cannot trace it in one graph"),
        ("meta", TakesMemory, "table takes memory on the meta device"),
        ("state", LosesState, "a checkpoint would not resume the run"),
        ("state", DecaysByAnOldName, "map.old_name, which are no parameters"),
        ("determinism", Rolls, "no sample could be reproduced"),
        ("declarations", DeclaresLate, "the class declares causal = False and the mixer says True"),
        ("options", Lenient, "a wrong width is accepted"),
        ("lengths", Open, "one for three rows are accepted: a kernel could read and write outside"),
        ("layout", Open, "another axis than time"),
        ("dtypes", Open, "would depend on the mixer, or fails as RuntimeError"),
        ("dtypes", OpenToFloat64, "weights of torch.float32 take an input of torch.float64"),
        ("dtypes", WidensShort, "the output is torch.float32"),
        ("zero_rows", NeedsRows, "a filter that leaves no clip would end the run"),
        ("finite_options", Endless, "rate=nan is accepted"),
        ("forward_mode", LosesTangents, "consistency models would train on it"),
        ("gradients_of_tangents", CurvesUnseen, "a loss of derivatives would misguide it"),
        ("transforms", LosesTangents, "a UserError would say what works instead"),
        ("second_derivatives", CurvesUnseen, "a gradient penalty would pull somewhere else"),
        ("replaced_layers", ReadsWeights, "an adapter would have no effect until it is merged"),
        ("hooks", SkipsHooks, "a forward hook on map changes nothing"),
        ("half_weights", OffInHalf, "it would sample from another model"),
    ],
)
def test_a_fault_is_refused(check, faulty, says):
    with pytest.raises(ContractError, match=says):
        CHECKS[check](lambda: faulty(8, faulty.Config()))


class Refuses(Sums):
    """It cannot do what tools ask, and says so."""

    def mix(self, x, lengths):
        if type(self.map) is not nn.Linear:
            raise InvalidInput("map must be a plain nn.Linear; merge the adapter")
        if torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0:
            raise InvalidInput("torch.func cannot transform this mixer; call it row by row")
        if x.dtype == torch.bfloat16:
            raise InvalidInput("weights must be float32")
        return super().mix(x, lengths)


@pytest.mark.parametrize(
    "check", ["forward_mode", "gradients_of_tangents", "transforms", "replaced_layers", "half_weights"]
)
def test_a_refusal_in_words_is_accepted(check):
    CHECKS[check](lambda: Refuses(8, Refuses.Config()))


def test_outcomes_go_on_after_a_failure_and_an_error():
    def make():
        raise RuntimeError("no weights today")

    assert dict(outcomes(make)) == dict.fromkeys(CHECKS, "RuntimeError: no weights today")
    assert [name for name, failure in outcomes(lambda: Forgets(8, Forgets.Config())) if failure] == [
        "chunks",
        "chunk_gradients",
        "steps",
    ]


def test_checks_leave_the_callers_random_state_alone():
    before = torch.get_rng_state()
    CHECKS["rows"](lambda: Sums(8, Sums.Config()))
    assert torch.equal(torch.get_rng_state(), before)
