"""Other people's code sends to our endpoints: what it signs is accepted, and nothing else.

python -m tests.conformance    install the senders that package-lock.json pins (npm ci)
"""
