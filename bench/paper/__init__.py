"""arXiv 2403.07711: the printed numbers, our counts, and a control experiment that the paper does not have."""
