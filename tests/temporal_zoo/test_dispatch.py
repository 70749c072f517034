"""Choosing a backend: pins, environment, reasons, packages that are absent or broken, tracing, and torch.compile."""

import logging
import sys

import pytest
import torch

from temporal_zoo.ops import BackendError, Planned, _dispatch, ops, planning, tracing, use_backend
from temporal_zoo.ops._dispatch import pins_from_text, why_absent

BACKEND = """
NEEDS = {needs!r}
CONFIRMED = "torch"
def refuses(x, *, scale=1.0):
    return {reasons}
def run(x, *, scale=1.0):
    return x * scale + {offset}
"""

OP = '''
from temporal_zoo.ops._dispatch import op

@op("picky", "absent", "plain", "reference")
def toy(x, *, scale=1.0):
    """Scales x."""
    if x.ndim != 1:
        raise ValueError(f"x is {tuple(x.shape)}; it must be (frames,)")
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """An op of four backends with different results: y = scale x + 1 (picky), + 3 (plain) or + 0 (reference)."""
    folder = tmp_path / "toy_op"
    folder.mkdir()
    (folder / "__init__.py").write_text(OP)
    too_long = '["takes up to 4 frames, not " + str(x.shape[0])] if x.shape[0] > 4 else []'
    for name, needs, reasons, offset in (
        ("picky", None, too_long, 1),
        ("absent", "no_such_package", "[]", 2),
        ("plain", None, "[]", 3),
        ("reference", None, "[]", 0),
    ):
        (folder / f"{name}.py").write_text(BACKEND.format(needs=needs, reasons=reasons, offset=offset))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_dispatch, "_ops", ops())  # the toy leaves with the test
    monkeypatch.delenv("ZOO_BACKEND", raising=False)
    import toy_op

    yield toy_op.toy
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_op"]:
        del sys.modules[name]


SHORT, LONG = torch.zeros(2), torch.zeros(7)


def offset(y):
    return y[0].item()


def test_auto_takes_the_first_backend_that_can_run(toy):
    assert offset(toy(SHORT)) == 1
    assert offset(toy(LONG)) == 3
    assert (toy.choose(SHORT), toy.choose(LONG)) == ("picky", "plain")
    assert toy(torch.ones(2), scale=5.0)[0] == 6


def test_arguments_are_checked_whatever_the_backend(toy):
    with pytest.raises(ValueError, match=r"x is \(1, 1\)"):
        toy(torch.zeros(1, 1), backend="reference")


def test_call_beats_context_beats_environment_beats_auto(toy, monkeypatch):
    monkeypatch.setenv("ZOO_BACKEND", "toy=plain")
    assert offset(toy(SHORT)) == 3
    with use_backend(toy="reference"):
        assert offset(toy(SHORT)) == 0
        assert offset(toy(SHORT, backend="picky")) == 1
        with use_backend(toy="picky"):
            assert offset(toy(SHORT)) == 1
        assert offset(toy(SHORT)) == 0
    assert offset(toy(SHORT)) == 3


def test_a_pin_ends_with_its_block_also_after_an_error(toy):
    with pytest.raises(KeyError), use_backend(toy="plain"):
        raise KeyError
    assert offset(toy(SHORT)) == 1


def test_a_pinned_backend_that_cannot_run_says_why_and_what_the_others_say(toy):
    with pytest.raises(BackendError) as refusal:
        toy(LONG, backend="picky")
    assert str(refusal.value).splitlines() == [
        "toy: the backend 'picky' cannot run these inputs",
        "  picky: takes up to 4 frames, not 7",
        "  absent: no_such_package is not installed",
        "  plain: can run",
        "  reference: can run",
    ]


def test_explain_gives_all_reasons(toy):
    absent = "no_such_package is not installed"
    assert toy.explain(LONG) == {
        "picky": ["takes up to 4 frames, not 7"],
        "absent": [absent],
        "plain": [],
        "reference": [],
    }
    assert toy.package("absent") == "no_such_package"


def test_unknown_backends_and_ops_get_the_nearest_name(toy, monkeypatch):
    with pytest.raises(
        BackendError, match=r'no backend \'pikcy\' \(did you mean "picky"\?\); it has picky, absent, plain'
    ):
        toy(SHORT, backend="pikcy")
    with pytest.raises(ValueError, match=r"no op is named 'tov'.*toy"), use_backend(tov="plain"):
        pass
    with pytest.raises(ValueError, match=r"toy has no backend 'plane'.*plain"), use_backend(toy="plane"):
        pass
    monkeypatch.setenv("ZOO_BACKEND", "tov=plain")
    with pytest.raises(ValueError, match=r"no op is named 'tov'.*toy"):
        toy(SHORT)


@pytest.mark.parametrize("text", ["toy", "toy=", "toy=plain,attention"])
def test_texts_that_pin_nothing_are_refused(text):
    with pytest.raises(ValueError, match="pins no backend"):
        pins_from_text(text)


def test_pins_read_from_text():
    assert pins_from_text("") == {}
    assert pins_from_text("a=b,c=d") == {"a": "b", "c": "d"}


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("broken_import", "import no_such_part", "installed but broken: No module named 'no_such_part'"),
        ("broken_link", "raise OSError('undefined symbol: c10\\nmore')", "broken: OSError: undefined symbol: c10"),
        ("broken_silent", "raise RuntimeError", "installed but broken: RuntimeError"),
        ("broken_exit", "import sys; sys.exit('no GPU')", "installed but broken: SystemExit: no GPU"),
        ("works_fine", "", None),
    ],
)
def test_a_broken_package_is_not_reported_as_absent(tmp_path, monkeypatch, name, source, words):
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    reason = why_absent(name)
    assert reason == words if words is None else words in reason
    sys.modules.pop(name, None)


def test_tracing_reports_backends_to_the_outer_blocks_too(toy):
    with tracing() as ran:
        toy(SHORT)
        with tracing() as inner:
            toy(LONG)
        assert inner == {"toy": {"plain"}}
    toy(SHORT, backend="reference")
    assert ran == {"toy": {"picky", "plain"}}


def test_the_reference_on_cuda_warns_once(toy, caplog):
    _dispatch._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="temporal_zoo.ops"):
        _dispatch._warn_reference("toy")
        _dispatch._warn_reference("toy")
    assert [record.message.startswith("toy runs its reference on CUDA") for record in caplog.records] == [True]


@pytest.fixture
def unconfirmed(toy, monkeypatch):
    """The toy op, whose fastest backend has no evidence."""
    monkeypatch.setattr(toy._load("picky"), "CONFIRMED", None)
    _dispatch._warn_once.cache_clear()
    return toy


def test_auto_prefers_confirmed_backends(unconfirmed):
    assert unconfirmed.tried("cpu") == ("absent", "plain", "picky", "reference")
    assert list(unconfirmed.explain(SHORT)) == list(unconfirmed.tried("cpu"))
    assert offset(unconfirmed(SHORT)) == 3
    assert offset(unconfirmed(SHORT, backend="picky")) == 1


def test_a_record_flips_the_order(unconfirmed, monkeypatch):
    monkeypatch.setattr(unconfirmed._load("picky"), "CONFIRMED", "docs/results/gpu/some.jsonl")
    assert unconfirmed.tried("cpu") == unconfirmed.backends
    assert offset(unconfirmed(SHORT)) == 1


def test_evidence_may_depend_on_the_device(unconfirmed, monkeypatch):
    monkeypatch.setattr(unconfirmed._load("picky"), "CONFIRMED", {"cpu": "tests"})
    assert unconfirmed.tried("cpu") == unconfirmed.backends
    assert unconfirmed.tried("cuda") == ("absent", "plain", "picky", "reference")
    with planning(Planned("cpu")):
        assert unconfirmed.choose(SHORT.to("meta")) == "picky"


def test_an_unconfirmed_backend_before_the_reference_warns_once(unconfirmed, monkeypatch, caplog):
    monkeypatch.setattr(unconfirmed._load("plain"), "refuses", lambda *args, **kwargs: ["not today"])
    with caplog.at_level(logging.WARNING, logger="temporal_zoo.ops"):
        assert [offset(unconfirmed(SHORT)) for _ in range(2)] == [1, 1]
        unconfirmed(LONG)  # the reference, on the CPU
        unconfirmed(SHORT, backend="picky")
    (record,) = caplog.records
    assert record.message.startswith("toy runs its backend picky, which no hardware has confirmed yet")


def test_plans_for_a_gpu_keep_the_order_of_speed(unconfirmed, caplog):
    with planning(Planned("cuda")):
        assert tuple(unconfirmed.explain(SHORT.to("meta"))) == unconfirmed.backends
        assert unconfirmed.choose(SHORT.to("meta")) == "picky"
    with planning(Planned("cpu")):
        assert tuple(unconfirmed.explain(SHORT.to("meta"))) == unconfirmed.tried("cpu")
        assert unconfirmed.choose(SHORT.to("meta")) == "plain"
    assert not caplog.records


def test_the_order_holds_in_a_compiled_graph(unconfirmed):
    compiled = torch.compile(unconfirmed, fullgraph=True, backend="eager")
    assert offset(compiled(SHORT)) == 3


@pytest.mark.parametrize("pin", [{}, {"toy": "reference"}])
def test_pins_and_traces_hold_in_one_compiled_graph(toy, pin):
    torch.compiler.reset()

    def double(x):
        return 2 * toy(x)

    with use_backend(**pin), tracing() as ran:
        y = torch.compile(double, fullgraph=True, backend="eager")(torch.ones(2))
    assert ran == {"toy": {pin.get("toy", "picky")}}
    assert y.tolist() == [2.0, 2.0] if pin else [4.0, 4.0]
    torch.compiler.reset()


def test_the_environment_holds_in_a_compiled_graph(toy, monkeypatch):
    torch.compiler.reset()
    monkeypatch.setenv("ZOO_BACKEND", "toy=plain")
    y = torch.compile(lambda x: toy(x), fullgraph=True, backend="eager")(torch.ones(2))
    assert y.tolist() == [4.0, 4.0]
    torch.compiler.reset()


def test_every_op_has_a_reference_that_needs_nothing_and_comes_last():
    assert {"selective_scan", "causal_conv"} <= set(ops())
    for name, op in ops().items():
        assert op.backends[-1] == "reference", name
        assert op.package("reference") is None, name
        assert op.__doc__, name
        assert op.__module__ == f"temporal_zoo.ops.{name}"
