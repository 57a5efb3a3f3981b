"""The door to Kafka: batches of records come in, outcomes decide what is committed, retried or dead-lettered.

publisher   messages out, each batch delivered before the call returns
consumer    a consumer group's share of some topics, in batches, committed last
follower    every partition of a compacted topic, from given positions, without a group
topics      the topics and their settings
background  threads beside the main loop

Knows Kafka; knows nothing of assets, vectors or databases.
"""
