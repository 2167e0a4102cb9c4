"""The server under load: measured, and as the page shows it."""
