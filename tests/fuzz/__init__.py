"""Damaged mail: what is put through handlers/ in numbers, to see that nothing escapes and nothing takes long."""
