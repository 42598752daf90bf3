"""The fault suite: a seeded random program against the whole product while its parts fail.

``make chaos`` (``python -m tests.chaos --help``) runs it for ten minutes; docs/chaos.md tells what
it does and checks.
"""
