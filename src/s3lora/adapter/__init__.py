"""An adapter as data: reading and writing files. No linear algebra, no torch."""
