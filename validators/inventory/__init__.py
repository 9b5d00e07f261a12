"""Is there enough in stock? Keeps a reservation for every order that passes."""
