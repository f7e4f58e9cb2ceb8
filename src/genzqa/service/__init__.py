"""`genzqa serve`: photos and videos scored over HTTP, and a page to drop them on (docs/serve.md)."""
