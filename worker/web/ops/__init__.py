"""The operators' console, `/ops`."""
