#!/usr/bin/env python3
"""The scripts of the engine of a cluster on a real Redis, reply by reply. Starts a server of its own."""
import json
import pathlib
import socket
import subprocess
import sys
import time

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "src/server/cluster/scripts"
KEYS = ["{t}nodes", "{t}who", "{t}data"]
LEASE = 6000

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = str(probe.getsockname()[1])


def cli(*words):
    done = subprocess.run(["redis-cli", "-p", PORT, "--json", *map(str, words)], capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        sys.exit(f"{words[0]}: {done.stdout}{done.stderr}")


def call(name, keys, args):
    return cli("eval", (SCRIPTS / f"{name}.lua").read_text(), len(keys), *keys, *args)


def renew(node, entry, process="P", since=""):
    return call("renew", KEYS, [node, LEASE, entry, process, since])


def name(room):
    return "{t}r:" + GENERATION + ":" + room


def claim(room, node, number, over="", grace=0, generation=None, since=0):
    args = [node, f"{node}.{number}", over, 600000, grace, generation or GENERATION, LEASE, since]
    return call("claim", [name(room), KEYS[0], KEYS[2]], args)


def keep(node, claims, generation=None):
    keys = [name(room) for room, _ in claims] + [KEYS[2]]
    return call("keep", keys, [node, 600000, generation or GENERATION, *(claim for _, claim in claims)])


def expect(what, found, expected):
    good = expected(found) if callable(expected) else found == expected
    print(f"{'ok' if good else 'WRONG'}  {what}")
    if not good:
        sys.exit(f"replied {found}")


def is_lease(holder):
    return lambda reply: reply[0] == holder and 0 < reply[1] <= LEASE


server = subprocess.Popen(
    ["redis-server", "--port", PORT, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
    stdout=subprocess.DEVNULL,
)
try:
    for _ in range(100):
        if subprocess.run(["redis-cli", "-p", PORT, "ping"], capture_output=True).stdout == b"PONG\n":
            break
        time.sleep(0.05)
    first = renew("a", "h:1 key 22 a")
    GENERATION = first[0]
    expect("the first node begins a generation", first[1:], [0])
    second = renew("b", "h:2 key 22 b")
    expect("the second sees the first", [second[0], *second[2:]], [GENERATION, "a", "h:1 key 22 a"])
    expect("a free name waits in the grace", claim("k", "a", 1, grace=LEASE), is_lease(""))
    expect("a free name is granted", claim("k", "a", 1), is_lease("a.1"))
    expect("a newer claim of the same node, too", claim("k", "a", 2), is_lease("a.2"))
    expect("a late claim is not", claim("k", "a", 1), ["", 0])
    expect("a name of another node is held", claim("k", "b", 1), is_lease("a.2"))
    expect("and not taken over while its lease lasts", claim("k", "b", 1, over="a.2"), is_lease("a.2"))
    expect("a claim for other data is not", claim("k", "b", 1, generation=int(GENERATION) - 1), ["", -1])
    expect("a node without a lease claims nothing", claim("z", "c", 1), ["", 0])
    expect("claims are kept", keep("a", [("k", "a.1"), ("y", "a.9")]), [])
    expect("but not an older one over a newer", cli("mget", name("k"), name("y")), ["a.2", "a.9"])
    expect("nor one to a name of another node", keep("b", [("k", "b.1")]), [0])
    expect("nor any for other data", keep("a", [("k", "a.2")], int(GENERATION) - 1), [-1])
    expect("another claim frees no name", call("release", [name("y")], ["a.8"]), 0)
    expect("its own does", call("release", [name("y")], ["a.9"]), 1)
    time.sleep(1.5)
    expect("a claim notices that the clock has leapt", claim("k", "a", 3), ["", -1])
    expect("and that it has not", claim("k", "a", 3, since=1600), is_lease("a.3"))
    expect("so does a renewal", renew("a", "h:1 key 22 a", since=1700)[0], GENERATION)
    call("leave", KEYS[:2], ["a"])
    expect("a node that left does not come back", renew("a", "h:1 key 22 a"), ["buried", 0])
    expect("its names are free at once", claim("k", "b", 2, since=1800), is_lease("b.2"))
    expect("a new process at an address", renew("d", "h:2 other 22 d")[0], GENERATION)
    expect("replaces the one before", renew("b", "h:2 key 22 b"), ["buried", 0])
    other = renew("d", "h:2 other 22 d", process="Q", since=10)
    expect("another process of Redis begins a generation", other, lambda reply: reply[0] != GENERATION)
    time.sleep(1.2)
    leapt = renew("d", "h:2 other 22 d", process="Q", since=10)
    expect("so does a clock that leapt", leapt, lambda reply: reply[0] not in (GENERATION, other[0]))
finally:
    server.kill()
