"""The report: one self-contained HTML page per run. Knows run folders, no training and no task."""
