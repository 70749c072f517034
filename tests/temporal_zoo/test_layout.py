"""`over_frames`: layouts of video models, lengths and masks per clip, against a loop over rows."""

import einops
import pytest
import torch

from temporal_zoo import InvalidInput, build, over_frames

DIM = 6
SIZES = {"b": 2, "t": 5, "h": 3, "w": 2, "c": DIM, "d": DIM}
LENGTHS = torch.tensor([5, 2])
VALID = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])

LAYOUTS = [
    ("b t d", {}),
    ("t b c", {}),
    ("b c t", {}),
    ("b c t h w", {}),
    ("b t h w c", {}),
    ("(b t) c h w", {"t": 5}),
    ("(b t) c h w", {"b": 2}),
    ("b t (h w) c", {"h": 3}),
    ("b (t h w) c", {"t": 5, "h": 3}),
    ("(b h w) t c", {"h": 3, "w": 2}),
    ("b 1 t c", {}),
    ("h b w t c", {}),
]


@pytest.fixture
def mixer():
    return build("bimamba", DIM, state=3, dtype=torch.float64)


def video(layout, dtype=torch.float64):
    """Random numbers in that layout."""
    axes = [axis for axis in layout.replace("(", " ").replace(")", " ").split() if axis != "1"]
    x = torch.randn([SIZES[axis] for axis in axes], dtype=dtype)
    return einops.rearrange(x, f"{' '.join(axes)} -> {layout}").requires_grad_()


def by_rows(mixer, x, layout, sizes, lengths):
    """The same through a loop over the rows; each row is cut to its length, and padded frames are zero."""
    rows = [axis for axis in layout.replace("(", " ").replace(")", " ").split() if axis not in ("1", "t", "c", "d")]
    feature = "d" if "d" in layout else "c"
    order = f"{' '.join(rows)} t {feature}"
    unfolded = einops.rearrange(x, f"{layout} -> {order}", **sizes)
    y = torch.zeros_like(unfolded)
    for index in torch.cartesian_prod(*(torch.arange(SIZES[axis]) for axis in rows)).reshape(-1, len(rows)):
        place = tuple(index.tolist())
        length = SIZES["t"] if lengths is None else int(lengths[place[rows.index("b")]])
        y[place][:length] = mixer(unfolded[place][None, :length])[0]
    return einops.rearrange(y, f"{order} -> {layout}", **{axis: SIZES[axis] for axis in order.split()})


def values_and_gradients(y, x, mixer):
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y, *torch.autograd.grad((y * weights).sum(), [x, *mixer.parameters()])]


@pytest.mark.parametrize(("layout", "sizes"), LAYOUTS)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all_real", "lengths"])
def test_values_and_gradients_are_those_of_a_loop_over_rows(mixer, layout, sizes, lengths):
    x = video(layout)
    actual = values_and_gradients(over_frames(mixer, x, layout, lengths=lengths, **sizes), x, mixer)
    expected = values_and_gradients(by_rows(mixer, x, layout, sizes, lengths), x, mixer)
    assert actual[0].shape == x.shape
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("layout", "sizes"), [("b c t h w", {}), ("(b t) c h w", {"t": 5})])
def test_a_mask_of_real_frames_is_the_same_as_lengths(mixer, layout, sizes):
    x = video(layout)
    masked = over_frames(mixer, x, layout, valid_mask=VALID, **sizes)
    assert torch.equal(masked, over_frames(mixer, x, layout, lengths=LENGTHS, **sizes))


def test_a_single_sequence_has_a_layout_too(mixer):
    x = video("t c")
    torch.testing.assert_close(over_frames(mixer, x, "t c"), mixer(x[None])[0])


def test_no_clips_give_no_clips(mixer):
    x = torch.zeros(0, DIM, 5, 3, 2, dtype=torch.float64)
    lengths = torch.zeros(0, dtype=torch.int64)
    assert over_frames(mixer, x, "b c t h w", lengths=lengths).shape == x.shape


def test_the_meta_device_and_compilation_follow_it(mixer):
    meta = build("bimamba", DIM, device="meta")
    x = torch.empty(2, DIM, 5, 3, device="meta")
    mask = torch.ones(2, 5, dtype=torch.bool, device="meta")
    assert over_frames(meta, x, "b c t h", valid_mask=mask).shape == x.shape
    compiled = torch.compile(over_frames, backend="eager", fullgraph=True)
    x = video("b c t h").detach()
    torch.testing.assert_close(
        compiled(mixer, x, "b c t h", valid_mask=VALID), over_frames(mixer, x, "b c t h", valid_mask=VALID)
    )


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.tensor([[True] * 5, [True, False, True, False, False]]), "True at the first frames of every clip"),
        (~VALID, "invert the mask if True means padding"),
        (torch.tensor([[True] * 5, [False] * 5]), "at least one"),
        (VALID.long(), r"torch\.int64; expected a tensor \(b, t\) = \(2, 5\) of torch\.bool"),
        (VALID.T, r"\(5, 2\) torch\.bool; expected a tensor \(b, t\) = \(2, 5\)"),
        ([[True] * 5] * 2, "valid_mask is of type list"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mixer, mask, words):
    with pytest.raises(InvalidInput, match=words):
        over_frames(mixer, video("b c t h"), "b c t h", valid_mask=mask)


@pytest.mark.parametrize(
    ("layout", "arguments", "words"),
    [
        ("b c t h w", {}, r"x is \(2, 6, 5, 3\), which does not fit the layout 'b c t h w'"),
        ("b c h w", {}, "must name the frame axis 't' and one feature axis"),
        ("b h t w", {}, "must name the frame axis 't' and one feature axis"),
        ("b c t d", {}, "must name the frame axis 't' and one feature axis"),
        ("b ... t c", {}, "must name every axis"),
        ("(b h) c t w", {}, "does not fit the layout"),
        ("b t c h", {}, "axis 'c' of x has size 5 in 'b t c h'; the mixer takes dim=6"),
        ("b c t (h", {}, "does not fit the layout"),
        ("b c t h", {"w": 3}, "the layout 'b c t h' has no axis 'w'"),
        ("b c t h", {"h": 4}, "does not fit the layout"),
        ("a c t h", {"lengths": LENGTHS}, "has no axis 'b' of clips"),
        ("b c t h", {"lengths": LENGTHS, "valid_mask": VALID}, "pass one of them"),
        ("b c t h", {"lengths": torch.tensor([5, 5, 5])}, r"lengths is \(3,\) torch\.int64; expected a tensor \(2,\)"),
        ("b c t h", {"lengths": [5, 2]}, "lengths is of type list"),
        ("b c t h", {"lengths": torch.tensor([5, 6])}, r"each must be in 1\.\.5"),
        ("b c t h", {"lengths": torch.tensor([5.0, 2.0])}, "int64"),
    ],
)
def test_layouts_and_lengths_that_do_not_fit_are_refused(mixer, layout, arguments, words):
    with pytest.raises(InvalidInput, match=words):
        over_frames(mixer, video("b c t h"), layout, **arguments)


def test_other_types_than_tensors_are_refused(mixer):
    with pytest.raises(InvalidInput, match="x is of type ndarray"):
        over_frames(mixer, video("b c t").detach().numpy(), "b c t")
