"""What is known of a base model without building it: its weights, read matrix by matrix."""
