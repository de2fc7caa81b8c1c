"""The HTTP side: recipients' pages, webhooks, the check API, and the console."""
