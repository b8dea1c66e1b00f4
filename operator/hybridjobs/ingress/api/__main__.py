"""`python -m hybridjobs.ingress.api`: the OpenAPI document, on standard output."""

import json
import sys

from hybridjobs.ingress.api import openapi

json.dump(openapi(), sys.stdout, indent=2, ensure_ascii=False)
sys.stdout.write("\n")
