"""Validators: fraud, inventory and details, one service each. They produce verdicts on orders."""
