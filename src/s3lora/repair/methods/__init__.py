"""The methods of repair, each with what it learns and how it depends on the strength."""
