"""Database, blobs, keys, audit and tokens: everything that is kept."""
