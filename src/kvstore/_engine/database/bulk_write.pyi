from kvstore._engine.database.database import Database

def put_many(db: Database, prefix: bytes, keys: object, values: object, sync: bool) -> int:
    """Write the rows of two columns; how many there were."""
