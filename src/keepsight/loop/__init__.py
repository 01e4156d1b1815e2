"""The durable loop: what starts a retrain, carries it through a crash and ends it once."""
