"""Choose a pool for a token budget, and judge the choice afterwards."""
