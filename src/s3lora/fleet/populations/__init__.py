"""Many adapters together: references, who stands where in them, and the survey of a dataset."""
