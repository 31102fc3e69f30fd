"""Results in pandas, and tables for a paper.

results.py  load_results: runs, summary, scores and anomaly maps of a result folder
table.py    a table of one metric, with mean and standard deviation over seeds
formats.py  a table as Markdown, LaTeX, CSV or HTML
"""

from harness.analysis.results import LoadedResults, load_results

__all__ = ["LoadedResults", "load_results"]
