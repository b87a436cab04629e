"""The database: engine, tables, group writer."""
