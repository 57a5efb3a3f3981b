"""From an upload event to its owner's refreshed recommendations, in the order of the journey.

pipeline    READ FIRST: the two use cases, ingest and refresh
parts       what the pipeline needs of its parts, and what goes between them
events      events in and out: frozen types, parse, dump
content     fetch and decode what an event points to, bounded and safe
encoders    content -> unit vectors in one space of images and texts
ownership   the truth in PostgreSQL: who owns what, vectors, versions, what is still to be announced
tables      its tables
index       one FAISS index per modality
catalogue   what all assets look like: the scale for areas and seeds
grouping    one kind of a profile's vectors -> groups that are one area each
interests   a profile's vectors -> areas of interest
vectors     at unit length, and what float32 does not tell apart
calibration vectors and scores of several modalities -> comparable ones, the modality gap closed
scores      cosines of hits -> scores comparable across modalities
ranking     hits per area -> rankings and one feed
stream      Kafka: consume in batches, retry, dead-letter, publish, commit
measures    what is counted of feeds, areas and retrieval
evaluation  how good are the recommendations? part of each profile held out, and counted
audit       does what was published agree with the truth?
embedded    Apache Kafka and PostgreSQL as child processes, for demo and tests
metrics     every metric once; /metrics, /livez, /readyz
settings    every default once
assemble    settings -> parts -> pipeline
oversight   what operators ask of a running installation
cli         zccr-stream
"""

__version__ = "0.1.0"
