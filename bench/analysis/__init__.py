"""What results say: curves, growth, crossover, comparison, tables, plots and the HTML page."""
