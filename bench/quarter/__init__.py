"""`python -m bench.gpu quarter`: measurements on a GPU within a time budget, such as a quarter of an hour.

`selection` lists the cases in their order, and `loop` runs them within the budget.  `process` starts and watches the
child processes that measure; `child` runs in these processes.  `plans` counts planned memory at the same time.
`results` reads and writes the records, and `page` shows them.
"""
