"""The demo: the task that ``avocado demo`` teaches the seedling, with data made on the spot."""
