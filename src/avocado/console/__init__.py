"""The console: pages for customers and for the operator. A process of its own, same workspace."""
