"""How the result of a run is shown: in a terminal, and as a page."""
