"""Tests, flat: test_<module>.py for each module, and whole journeys."""
