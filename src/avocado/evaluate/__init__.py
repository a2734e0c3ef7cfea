"""A checkpoint is scored against its base, item by item, through the engine that will serve it."""
