"""`/v1/…`: what SendGrid has no shape for."""
