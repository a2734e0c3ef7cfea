"""The verbs. Wires the rooms together; nothing imports it."""
