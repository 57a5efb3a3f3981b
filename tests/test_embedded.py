import sqlalchemy as sa
from confluent_kafka.admin import AdminClient, NewTopic


def test_a_test_has_a_database_of_its_own_to_write_to(database: str) -> None:
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE only_here (n int)"))
        assert connection.execute(sa.text("SELECT count(*) FROM only_here")).scalar_one() == 0
    engine.dispose()


def test_a_test_makes_topics_on_the_shared_broker(bootstrap_servers: str, topic_prefix: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for made in admin.create_topics([NewTopic(f"{topic_prefix}a", 3)]).values():
        made.result(timeout=30)
    assert len(admin.list_topics(timeout=30).topics[f"{topic_prefix}a"].partitions) == 3
