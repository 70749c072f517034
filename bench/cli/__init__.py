"""The commands of this package, one file each: bench, plan, reproduce, report, compare."""
