"""An MCP server in the standard library: whatever it is told to say, it says on the wire.

    python raw.py FILE.json

The file: {"tools": […], "results": {tool name: result of tools/call}}. Besides, there are the
tools `die` (exits with code 3), `hang`, `env` (the names of its variables), `echo` and `child`
(starts a process that sleeps; gives its id).
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

OWN = ["die", "hang", "env", "echo", "child", "bad_words"]


def tool(name):
    return {"name": name, "inputSchema": {"type": "object", "additionalProperties": True}}


def text(value):
    return {"content": [{"type": "text", "text": value}]}


def call(name, arguments, results):
    match name:
        case "die":
            print("I cannot go on: the key sesame-1234 is bad", file=sys.stderr, flush=True)
            os._exit(3)
        case "hang":
            threading.Event().wait()
        case "env":
            return text(json.dumps(sorted(os.environ)))
        case "echo":
            return text(json.dumps(arguments, sort_keys=True))
        case "child":
            sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
            return text(str(subprocess.Popen(sleeper).pid))
        case "bad_words":
            return text(f"no: {os.environ.get('TOKEN')}") | {"isError": True}
    return results[name]


def answer(request, plan):
    match request["method"]:
        case "initialize":
            asked = request["params"]["protocolVersion"]
            info = {"name": plan.get("name", "raw"), "version": "1"}
            return {"protocolVersion": asked, "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            return {"tools": [*plan["tools"], *map(tool, OWN)]}
        case "tools/call":
            params = request["params"]
            return call(params["name"], params.get("arguments") or {}, plan["results"])
    return None


def main():
    plan = {"tools": [], "results": {}}
    if len(sys.argv) > 1:
        plan |= json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if plan.get("exit"):
        print(plan["exit"], file=sys.stderr, flush=True)
        sys.exit(4)
    if plan.get("slow"):
        print("still loading", file=sys.stderr, flush=True)
        threading.Event().wait()
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        reply = {"jsonrpc": "2.0", "id": request["id"]}
        if (result := answer(request, plan)) is None:
            reply["error"] = {"code": -32601, "message": "Method not found"}
        else:
            reply["result"] = result
        print(json.dumps(reply), flush=True)


main()
