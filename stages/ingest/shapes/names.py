"""The names of all shapes, as a config may give them; a test holds them to the table of shapes."""

from typing import Literal

ShapeName = Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion"]
