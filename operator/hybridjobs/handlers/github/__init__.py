"""Jobs that bring GitHub's data into the schema `github`.

`client` asks GitHub, `rows` makes its answers rows, `tables` writes them; `details` and `sync` are
the handlers. They need DATABASE_URL, and read GITHUB_API_URL and GITHUB_TOKEN.
"""
