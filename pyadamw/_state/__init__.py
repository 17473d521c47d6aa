"""The floor of state: its formats, making, converting, sharding, loading, exporting and reporting it."""
