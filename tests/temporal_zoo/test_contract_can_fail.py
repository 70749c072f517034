"""Each check of the contract fails for a mixer with the bug that it looks for, and names the consequence."""

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
    """An unregistered mixer of another project: a linear map of the sum of all frames so far."""

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


class DependsOnPadding(Sums):
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


class SeesTheFuture(Sums):
    def mix(self, x, lengths):
        return self.map(x.flip(1).cumsum(1).flip(1))


class DeclaresNotCausal(Sums):
    causal = False


class DeclaresOrderBlind(Sums):
    order_blind = True


class IsOrderBlind(Sums):
    def mix(self, x, lengths):
        return self.map(x)


class HasUnusedParameter(Sums):
    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.unused = nn.Parameter(torch.ones(3))


class IgnoresStates(Sums):
    def mix_chunk(self, x, state, *, reverse=False):
        return super().mix_chunk(x, None)


class DetachesStates(Sums):
    def mix_chunk(self, x, state, *, reverse=False):
        return super().mix_chunk(x, None if state is None else state.detach())


class StartsFromOnes(Sums):
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


class ChangesUnderAutocast(Sums):
    def mix(self, x, lengths):
        return super().mix(x, lengths) * (1.5 if torch.is_autocast_enabled("cpu") else 1)


class CountsCalls(Sums):
    calls = 0

    def mix(self, x, lengths):
        self.calls += 1
        return super().mix(x, lengths) * self.calls


class BreaksTheGraph(Sums):
    def mix(self, x, lengths):
        torch._dynamo.graph_break()
        return super().mix(x, lengths)


class TakesMemory(Sums):
    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.register_buffer("table", torch.zeros(3, device="cpu"))


class HasStateOutsideTheStateDict(Sums):
    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.scale = torch.rand(())

    def mix(self, x, lengths):
        return super().mix(x, lengths) * self.scale.to(x.device)


class DecaysByAnOldName(Sums):
    no_decay = ("map.old_name",)


class IsRandom(Sums):
    def mix(self, x, lengths):
        return super().mix(x, lengths) + torch.rand_like(x)


class Unchecked(Sums):
    """Without the checks of `Mixer.forward`."""

    def forward(self, x, lengths=None):
        return self.mix(x, lengths)


class AcceptsFloat64(Unchecked):
    def mix(self, x, lengths):
        return super().mix(x.to(self.map.weight.dtype), lengths).to(x.dtype)


class NeedsRows(Sums):
    def mix(self, x, lengths):
        return super().mix(x, lengths).reshape(x.shape[0], -1, self.dim)


class ReturnsFloat32(Sums):
    """Returns float32 for weights of any dtype."""

    def forward(self, x, lengths=None):
        if x.dtype != self.map.weight.dtype:
            raise InvalidInput("no")
        return super().forward(x, lengths).float()


class AcceptsInfinity(Sums):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        rate: float = option(0.5, "checked here")

        def __post_init__(self):
            if not isinstance(self.rate, float):
                raise ConfigError(f"Config.rate is {self.rate!r}")


class AcceptsWrongTypes(Sums):
    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        width: int = option(3, "not checked")

        def __post_init__(self):
            pass


@torch.library.custom_op("test_contract_can_fail::sums", mutates_args=())
def sums(x: torch.Tensor) -> torch.Tensor:
    return x.cumsum(1)


sums.register_fake(torch.empty_like)
sums.register_autograd(lambda ctx, grad: grad.flip(1).cumsum(1).flip(1))


class HasNoForwardMode(Sums):
    def mix(self, x, lengths):
        return self.map(sums(x))


class Cube(torch.autograd.Function):
    """x^3; torch cannot differentiate its derivative."""

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


class HasNoSecondDerivative(Sums):
    def mix(self, x, lengths):
        return self.map(Cube.apply(x.cumsum(1)))


class ReadsTheWeights(Sums):
    def mix(self, x, lengths):
        return nn.functional.linear(x.cumsum(1), self.map.weight, self.map.bias)


class SkipsHooks(Sums):
    def mix(self, x, lengths):
        return self.map.forward(x.cumsum(1))


class DeclaresInTheConstructor(Sums):
    causal = False

    def __init__(self, dim, config, shared=None):
        super().__init__(dim, config, shared)
        self.causal = True


class ChangesInHalfPrecision(Sums):
    def mix(self, x, lengths):
        return super().mix(x, lengths) * (1.5 if self.map.weight.dtype == torch.bfloat16 else 1)


@pytest.mark.parametrize("check", CHECKS)
def test_a_correct_mixer_passes(check):
    CHECKS[check](lambda: Sums(8, Sums.Config()))


@pytest.mark.parametrize(
    ("check", "mixer", "message"),
    [
        ("shapes", Narrow, "a residual cannot add it"),
        ("padding_values", DependsOnPadding, "depend on the other clips of the batch"),
        ("padding_gradients", TrainsOnPadding, "padding a clip of 5 frames changes the gradient"),
        ("rows", MixesRows, "leak into each other"),
        ("causality", SeesTheFuture, "trained with the answer"),
        ("causality", DeclaresNotCausal, "would treat it as bidirectional"),
        ("causality", IsOrderBlind, "the mixer would not connect frames"),
        ("order", DeclaresOrderBlind, "it is not a control"),
        ("order", IsOrderBlind, "does not depend on the order of frames"),
        ("gradients", HasUnusedParameter, "unused is never used"),
        ("chunks", IgnoresStates, "would have seams between chunks"),
        ("steps", IgnoresStates, "a live stream would drift"),
        ("chunk_gradients", DetachesStates, "would ignore earlier frames"),
        ("states", StartsFromOnes, "a frame that does not exist"),
        ("states", WithUnregisteredState, "not a registered pytree"),
        ("states", MixesStates, "the streams of a batch would be confused"),
        ("autocast", ChangesUnderAutocast, "mixed precision would train another model"),
        ("checkpointing", CountsCalls, "saving memory would change the result"),
        ("compile", BreaksTheGraph, "cannot trace the mixer in one graph"),
        ("meta", TakesMemory, "table takes memory on the meta device"),
        ("state", HasStateOutsideTheStateDict, "a checkpoint would not resume the run"),
        ("state", DecaysByAnOldName, "map.old_name, which are not parameters"),
        ("determinism", IsRandom, "a seed would not reproduce its sample"),
        ("declarations", DeclaresInTheConstructor, "the class declares causal = False, and the mixer has True"),
        ("options", AcceptsWrongTypes, "a wrong width is accepted"),
        ("lengths", Unchecked, "one for three rows are accepted: a kernel could read and write outside"),
        ("layout", Unchecked, "an axis that is not time"),
        ("dtypes", Unchecked, "would depend on the mixer .raises RuntimeError"),
        ("dtypes", AcceptsFloat64, "float32 weights accept an input of torch.float64"),
        ("dtypes", ReturnsFloat32, "the output is torch.float32"),
        ("zero_rows", NeedsRows, "a filter that removes all clips would end the run"),
        ("finite_options", AcceptsInfinity, "rate=nan is accepted"),
        ("forward_mode", HasNoForwardMode, "consistency models would train on it"),
        ("gradients_of_tangents", HasNoSecondDerivative, "a loss of derivatives would train it wrongly"),
        ("transforms", HasNoForwardMode, "a UserError would say what works instead"),
        ("second_derivatives", HasNoSecondDerivative, "a gradient penalty would have a wrong gradient"),
        ("replaced_layers", ReadsTheWeights, "an adapter would have no effect until it is merged"),
        ("hooks", SkipsHooks, "a forward hook on map has no effect"),
        ("half_weights", ChangesInHalfPrecision, "it would sample from another model"),
    ],
)
def test_a_mixer_with_a_bug_fails(check, mixer, message):
    with pytest.raises(ContractError, match=message):
        CHECKS[check](lambda: mixer(8, mixer.Config()))


class Refuses(Sums):
    """Refuses all tools with a message."""

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
def test_a_user_error_passes(check):
    CHECKS[check](lambda: Refuses(8, Refuses.Config()))


def test_outcomes_continue_after_a_failure_and_an_error():
    def make():
        raise RuntimeError("no weights")

    assert dict(outcomes(make)) == dict.fromkeys(CHECKS, "RuntimeError: no weights")
    assert [name for name, failure in outcomes(lambda: IgnoresStates(8, IgnoresStates.Config())) if failure] == [
        "chunks",
        "chunk_gradients",
        "steps",
    ]


def test_checks_restore_the_random_state_of_the_caller():
    before = torch.get_rng_state()
    CHECKS["rows"](lambda: Sums(8, Sums.Config()))
    assert torch.equal(torch.get_rng_state(), before)
