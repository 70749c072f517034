"""arXiv 2403.07711: what the paper prints, what is counted here, and the control that it lacks."""
