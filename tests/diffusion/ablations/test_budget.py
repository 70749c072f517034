"""Budgets from text."""

import pytest

from diffusion.ablations import AblationError
from diffusion.ablations.budget import Budget


def test_budgets_are_read_from_text():
    assert Budget.parse("seconds=120") == Budget("seconds", 120.0)
    assert Budget.parse("parameters") == Budget("parameters")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("watts", "unknown budget 'watts'; choose from steps, parameters, stored_bytes, seconds"),
        ("seconds", "needs a target"),
        ("seconds=much", "is not a number"),
        ("steps=3", "takes no target"),
        ("parameters=0", "must be finite and above zero, not 0"),
        ("parameters=inf", "must be finite and above zero, not inf"),
    ],
)
def test_a_wrong_budget_is_refused(text, message):
    with pytest.raises(AblationError, match=message):
        Budget.parse(text)
