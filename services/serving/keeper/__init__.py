"""The keeper: parent of the servers and the door, so that they outlive a serving service that is killed. Standard library alone."""
