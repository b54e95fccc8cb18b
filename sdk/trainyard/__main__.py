"""`python -m trainyard` is the command `trainyard`."""

from trainyard._cli import app

app(prog_name="trainyard")
