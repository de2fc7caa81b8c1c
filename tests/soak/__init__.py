"""A soak: unsubd under load and faults for a given time."""
