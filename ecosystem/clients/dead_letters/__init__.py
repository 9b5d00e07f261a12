"""Dead letters, from the operator's side: looked at, and written back once their cause is mended."""
