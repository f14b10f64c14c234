"""`dualpool evaluate`: how well estimators keep their budgets, on texts and tokenizers."""
