"""Read the tokens an answer used from its bytes."""
