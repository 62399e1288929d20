"""What happened, and what does it mean? Records, the files that hold them, metrics, the summary and the report."""
