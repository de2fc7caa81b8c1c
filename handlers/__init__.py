"""What a message means: pure functions over values. No socket, no Redis, no clock, no environment."""
