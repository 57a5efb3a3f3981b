import sqlalchemy as sa


def test_a_test_has_a_database_of_its_own_to_write_to(database: str) -> None:
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE only_here (n int)"))
        assert connection.execute(sa.text("SELECT count(*) FROM only_here")).scalar_one() == 0
    engine.dispose()
