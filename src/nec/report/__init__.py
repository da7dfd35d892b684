"""What runs found: rows, intervals, tables, deltas, figures and a page."""
