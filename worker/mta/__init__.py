"""What a mail server asks before mail leaves it: may this recipient be mailed, and which headers does the mail need?

Two services, each a part of `unsubd run`: `policy` (Postfix's check_policy_service) refuses or discards at RCPT; `milter`
stamps `List-Unsubscribe` and drops suppressed recipients. Both know by `map.py` which sender and group a mail is of, and
leave alone what has no route. While the store is away mapped mail is put off, never let through.

Neither protocol knows a password: the unix socket's folder, or loopback, is who may ask.
"""
