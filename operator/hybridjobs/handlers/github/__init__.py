"""Jobs that bring GitHub's data into the schema `github`.

`client` asks GitHub, `rows` makes its answers rows, `tables` writes them. The handlers are
`details`, `discussions`, `issues` and `sync`; `capturing` is what each does beside its own work,
`over_numbers` goes through pull requests or issues, `passes` through lists that change, `fan_out`
submits what follows. They need DATABASE_URL, and read GITHUB_API_URL, GITHUB_TOKEN, GITHUB_APP_ID
and GITHUB_APP_PRIVATE_KEY.
"""
