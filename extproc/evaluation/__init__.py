"""`dualpool evaluate`: compare estimators on texts and tokenizers."""
