"""`python -m fuseline.cli`: the command where the package is not installed, as in the server's image."""

from fuseline.cli import app

app(prog_name="fuseline")
