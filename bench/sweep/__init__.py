"""Running cases: what a case is, its subprocess, what is measured in it, and the results."""
