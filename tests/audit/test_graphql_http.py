"""The audits of the npm package graphql-http, https://graphql-http.com, over our server."""

import asyncio
import json
import subprocess

from tests.audit.node import FRONTEND, node
from tests.audit.report import Report
from tests.audit.target import Target

SCRIPT = """
    import { auditServer } from "graphql-http";
    const results = await auditServer({ url: process.argv[1] });
    const told = await Promise.all(results.map(async ({ id, name, status, reason }) =>
        ({ id, name, status, reason: reason ?? null })));
    console.log(JSON.stringify(told));
"""


async def test_what_must_and_what_should_be_is_so(target: Target, calm: None, report: Report) -> None:
    process = await asyncio.to_thread(
        subprocess.run,
        [node("graphql-http"), "--input-type=module", "-e", SCRIPT, target.graphql],
        cwd=FRONTEND,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    audits = json.loads(process.stdout)
    assert len(audits) > 50
    failed = [one for one in audits if one["status"] != "ok" and not one["name"].startswith("MAY")]
    assert failed == []
    passed = sum(one["status"] == "ok" for one in audits)
    report.add(f"graphql-http: {len(audits)} audits", "HTTP", "", verdict=f"{passed} pass")
