"""Bulk replay: many recordings at once on a Ray cluster, and their results as Parquet.  Needs the extra `ray`."""
