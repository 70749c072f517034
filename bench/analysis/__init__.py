"""Analysis of results: curves, growth, crossovers, comparisons, tables, plots and the HTML page."""
