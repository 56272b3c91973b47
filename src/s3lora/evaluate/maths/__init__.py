"""Word problems with one number as the answer: generated ones, those of a file, and what a model makes of them."""
