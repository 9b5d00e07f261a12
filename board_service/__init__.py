"""Board service: a page that shows the deployment live: orders, stock, workers, backlog, dead letters."""
