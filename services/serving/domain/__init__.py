"""The rules of endpoints, pure: no clock, no files, no processes."""
