"""Pure: what the facts say of a run, and of what came from what."""
