"""A quarter of an hour on a GPU: what `python -m bench.gpu quarter` measures, and how it keeps to its minutes.

`selection` says what is measured and in which order, and `loop` keeps the budget.  `process` starts and watches the
processes that measure; `child` runs in them.  `results` reads and writes the records, and `page` shows them.
"""
