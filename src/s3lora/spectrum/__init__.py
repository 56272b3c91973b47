"""Pure functions on arrays: norms, spectra and indices of ΔW = s·B·A. Knows nothing of adapters or files."""
