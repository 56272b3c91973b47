"""What is known of a base model without building it: names, shapes, configuration, weights."""
