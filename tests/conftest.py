"""The Hypothesis profile of all tests: few examples, no deadline (a machine may be busy), failures can be replayed."""

from hypothesis import settings

settings.register_profile("gary", max_examples=60, deadline=None, print_blob=True)
settings.load_profile("gary")
