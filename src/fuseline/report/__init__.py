"""One self-contained HTML page that shows why a bundle was blessed or refused."""
