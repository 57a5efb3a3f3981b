"""The schema's history, one Alembic revision per step: `zccr-stream migrate` goes to the newest.

A step must suit the code before it and the code after it, since both run while a deployment rolls: first expand (new
tables, new nullable columns, indexes concurrently), then deploy, then contract in a later release.
"""
