"""A child that does what the worker's name says, on the line of `child_line`; no engine in it."""

import json
import os
import signal
import subprocess
import sys
import time


def tell(said: object) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


opening = json.loads(sys.stdin.readline())
what, _, argument = sys.argv[3].partition(":")
match what:
    case "ends":
        tell({"ended": argument, "error": "as told"})
    case "echoes":
        tell({"log": {"name": "child", "level": 40, "message": json.dumps(opening), "facts": {"words": sys.argv}}})
        tell({"ended": "done", "error": None})
    case "logs":
        facts = {"action": "counted", "n": 3, "name": "mine", "message": "mine"}
        tell({"log": {"name": "dspy_optimization.x", "level": 20, "message": "100 % done", "facts": facts}})
        tell({"log": {"name": "dspy_optimization.x", "level": 10, "message": "too quiet", "facts": {}}})
        sys.stderr.write("printed by an agent\n")
        tell({"ended": "done", "error": None})
    case "shouts":
        sys.stderr.write("a" * 20_000_000 + "\n")
        for _ in range(300):
            sys.stderr.write("b" * 20_000 + "\n")
        sys.stderr.write("the end\n")
        sys.stderr.flush()
        os._exit(3)
    case "tells":
        sys.stdout.write("{" * 5_000_000 + "\n")
        tell({"ended": "done", "error": None})
    case "shows":
        found = json.dumps({name: os.environ.get(name) for name in argument.split(",")})
        tell({"log": {"name": "child", "level": 40, "message": found, "facts": {}}})
        tell({"ended": "done", "error": None})
    case "dies":
        os.kill(os.getpid(), int(argument))
        time.sleep(60)
    case "leaves":
        sys.stderr.write("Traceback: the key sk-abcdefghijklmnop is wrong\n")
        sys.stdout.write('{"log": {"na')  # in the middle of a line
        sys.stdout.flush()
        os._exit(int(argument))
    case "obeys":
        order = json.loads(sys.stdin.readline())
        tell({"log": {"name": "child", "level": 40, "message": json.dumps(order), "facts": {}}})
        tell({"ended": "done", "error": None})
    case "disobeys":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    case "litters":
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # holds our output open
        tell({"log": {"name": "child", "level": 40, "message": str(left.pid), "facts": {}}})
        os._exit(0)
