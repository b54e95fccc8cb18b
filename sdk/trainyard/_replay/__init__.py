"""Sampled calls, asked again of another version, and the answers compared: `trainyard endpoint replay`."""
