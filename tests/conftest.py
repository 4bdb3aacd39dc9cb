"""For all tests."""

from hypothesis import settings

# How long one example takes says something of the machine and nothing of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
