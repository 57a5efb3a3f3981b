"""Uploads come in; their decoded content, or why there is none, goes out: bounded and safe.

loader    READ FIRST: a batch side by side, within its deadline
limits    what it may cost, and where it may come from
web       http and https, made for URLs that strangers choose
network   its connections: checked addresses, one deadline
addresses which addresses may be connected to
stores    s3 and gs; files and inline: file: and data:
images    encoded bytes -> an upright RGB image
texts     bytes -> a clean text

Everything that comes in here is hostile. Knows no encoder, no database and no Kafka.
"""

from zccr_stream.content.limits import DecodeLimits, FetchLimits
from zccr_stream.content.loader import ContentLoader

__all__ = ["ContentLoader", "DecodeLimits", "FetchLimits"]
