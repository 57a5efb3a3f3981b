"""The door to Kafka: batches of records come in, outcomes decide what is committed, retried or dead-lettered.

publisher   messages out, each batch delivered before the call returns
consumer    a consumer group's share of some topics, in batches, committed last
progress    how far it is: partitions, records on their way, what waits
workers     the threads that work on its batches, retries, dead letters
follower    every partition of a compacted topic, from given positions, without a group
records     Kafka's messages and errors in our words
lag         how far groups are behind, asked from outside
topics      the topics and their settings
background  threads beside the main loop

Knows Kafka; knows nothing of assets, vectors or databases.
"""
