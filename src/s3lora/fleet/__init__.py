"""Many adapters: inputs, engines, results in Parquet, reference populations, and what is unusual against them."""
