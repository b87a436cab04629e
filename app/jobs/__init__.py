"""Work that has an owner for a time, shared by background runs and the ingestion of files."""
