"""The page at `/` of the HTTP port: its figures, the last hour of them, and its static files.

Invariant: what it keeps is bounded, and holds neither a text nor a tenant.
"""
