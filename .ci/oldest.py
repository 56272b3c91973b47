"""Print the oldest version of each package that the program needs, as constraints for pip."""

import re
import sys
from pathlib import Path

# Read by hand: Python 3.10 has no tomllib, and nothing is installed yet.
text = (Path(sys.argv[0]).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
table = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
assert table is not None
for requirement in re.findall(r'^ *"([^"]+)"', table[1], re.MULTILINE):
    print(requirement.replace(">=", "==", 1))
# Of the tools, later ones want a later click.
print("check-jsonschema==0.30")
