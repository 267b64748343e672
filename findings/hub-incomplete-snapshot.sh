#!/usr/bin/env bash
# huggingface_hub keeps the list of a commit's files in its cache, but only `snapshot_download` writes that list. If a model's
# files came one by one (`hf_hub_download`, as loaders ask for them), `snapshot_download` without a network returns the folder
# as it is: without chat template, tokenizer or weights, and without an error. If the same files came by `snapshot_download`
# with patterns, the same call says what is missing. One would have guessed that a snapshot is either whole or an error: a
# program that takes "the folder has no chat_template.jinja" for "the model has none" then puts text to the model in another
# way, and nobody notices.
. "$(dirname "$0")/lib.sh"
python_with huggingface_hub==2.4.0
cat >hub.py <<'E'
"""A hub of one model with three files, on 127.0.0.1."""
import hashlib, http.server, json, threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "chat_template.jinja": b"{{ messages }}", "tokenizer.json": b"{}"}


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        path, name = self.path.split("?")[0], self.path.split("/")[-1]
        oid = lambda data: hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if path.startswith("/api/models/a/b/tree/"):
            body = json.dumps([{"type": "file", "path": n, "size": len(d), "oid": oid(d)} for n, d in FILES.items()]).encode()
        elif path.startswith("/api/models/a/b"):
            body = json.dumps({"id": "a/b", "sha": COMMIT, "siblings": [{"rfilename": n} for n in FILES]}).encode()
        elif path.startswith("/a/b/resolve/") and name in FILES:
            body = FILES[name]
        else:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"%s"' % oid(body))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
URL = "http://127.0.0.1:%d" % server.server_address[1]
E
export HF_HUB_DISABLE_PROGRESS_BARS=1 HF_HUB_DISABLE_TELEMETRY=1 NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
run venv/bin/python - <<'E'
import os
from hub import URL
from huggingface_hub import hf_hub_download, snapshot_download

one_by_one = lambda cache: hf_hub_download("a/b", "config.json", endpoint=URL, cache_dir=cache, token=False)
by_pattern = lambda cache: snapshot_download("a/b", allow_patterns="config.json", endpoint=URL, cache_dir=cache, token=False)
for way, download in [("hf_hub_download of config.json", one_by_one), ("snapshot_download of config.json", by_pattern)]:
    cache = way.split()[0]
    download(cache)
    try:
        found = "returns a folder with " + ", ".join(sorted(os.listdir(snapshot_download("a/b", cache_dir=cache, local_files_only=True))))
    except Exception as error:
        found = "raises " + type(error).__name__
    print(f"{way}, then snapshot_download without a network {found}")
E
expect <<'E'
hf_hub_download of config.json, then snapshot_download without a network returns a folder with config.json
snapshot_download of config.json, then snapshot_download without a network raises IncompleteSnapshotError
E
