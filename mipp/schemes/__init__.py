"""How a query is hidden, answered and opened: one file a scheme."""
