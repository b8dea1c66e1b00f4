"""Jobs that bring GitHub's data into the schema `github`.

`client` asks GitHub, `rows` makes its answers rows, `tables` writes them; `details` and `sync` are
the handlers. They need DATABASE_URL, and read GITHUB_API_URL, GITHUB_TOKEN, GITHUB_APP_ID and
GITHUB_APP_PRIVATE_KEY.
"""
