"""A model hub on 127.0.0.1 for the unmodified `huggingface_hub` client: repositories, commits, LFS, faults by rule.

Large files live on a second port whose requests must not carry a token, as on the real hub, where they lie with
another company: a client that leaks its token fails. Everything is held in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".pt", ".pkl", ".onnx")
MESSAGES = {"WrongToken": "Invalid credentials in Authorization header", "NoToken": "Invalid username or password."}
CREATED = "2026-01-01T00:00:00.000Z"


@dataclass
class Rule:
    """One injected fault: what happens to the next `times` requests that match."""

    method: str
    path: str  # regular expression, searched in the raw path
    action: str = "status"  # status, drop, cut, flip (a byte of the answer), corrupt (a byte of the upload), delay
    status: int = 500
    code: str | None = None
    times: int = 1
    seconds: float = 0.0
    hits: int = 0


@dataclass
class Commit:
    """Files of one commit: path to sha256 of the content."""

    sha: str
    files: dict[str, str]
    title: str
    parent: str | None


@dataclass
class Repository:
    """Commits, and the branches and tags that point at them."""

    owner: str
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: int = 0

    def resolve(self, revision: str) -> str | None:
        return (
            self.branches.get(revision) or self.tags.get(revision) or (revision if revision in self.commits else None)
        )

    def add(self, files: dict[str, str], title: str, branch: str) -> Commit:
        parent = self.branches.get(branch)
        text = json.dumps([sorted(files.items()), title, parent, len(self.commits)])
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), files, title, parent)
        self.commits[commit.sha] = commit
        self.branches[branch] = commit.sha
        return commit


@dataclass(frozen=True)
class Request:
    """One line of the log."""

    server: str
    method: str
    path: str
    token: str | None
    status: int


class Refusal(Exception):
    """An answer other than success."""

    def __init__(self, status: int, code: str | None, message: str, body: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.body = status, code, message, body


class Hub:
    """The two servers and their state.

    `tokens` maps a token to `(user, "read" or "write")`. `hub.fail(...)` injects a fault, `hub.requests` is the log.
    """

    def __init__(self, tokens: dict[str, tuple[str, str]]) -> None:
        self.tokens = tokens
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.stored: set[str] = set()  # LFS objects whose upload was verified
        self.rules: list[Rule] = []
        self.requests: list[Request] = []
        self.lock = threading.RLock()
        self.servers: list[ThreadingHTTPServer] = []
        self.ports = [0, 0]

    def start(self) -> Hub:
        """Listen; the ports stay the same over `stop` and `start`."""
        for index, handler in enumerate((ApiHandler, BlobHandler)):
            kind = type(handler.__name__, (handler,), {"hub": self})
            server = ThreadingHTTPServer(("127.0.0.1", self.ports[index]), kind)
            server.daemon_threads = True
            self.ports[index] = server.server_address[1]
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            self.servers.append(server)
        return self

    def stop(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.servers = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def blob_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    def fail(self, method: str, path: str, action: str = "status", **rule: Any) -> Rule:
        made = Rule(method, path, action, **rule)
        with self.lock:
            self.rules.append(made)
        return made

    def clear(self) -> None:
        """Forget faults and log."""
        with self.lock:
            self.rules.clear()
            self.requests.clear()

    def repository(self, name: str, kind: str = "models") -> Repository:
        return self.repositories[kind, name]

    def head(self, name: str, kind: str = "models") -> str:
        """The newest commit of the main branch."""
        return self.repository(name, kind).branches["main"]

    def content(self, name: str, path: str, revision: str = "main", kind: str = "models") -> bytes:
        repository = self.repository(name, kind)
        return self.blobs[repository.commits[repository.resolve(revision) or ""].files[path]]

    def files(self, name: str, revision: str = "main") -> list[str]:
        repository = self.repository(name)
        return sorted(repository.commits[repository.resolve(revision) or ""].files)

    def log(self, name: str, branch: str = "main") -> list[str]:
        """Titles of the commits of a branch, the newest first."""
        repository = self.repository(name)
        titles, sha = [], repository.branches.get(branch)
        while sha is not None:
            commit = repository.commits[sha]
            titles.append(commit.title)
            sha = commit.parent
        return titles

    def seed(self, name: str, files: dict[str, bytes], kind: str = "models", branch: str = "main") -> str:
        """Put files into a repository from behind, whatever their names; returns the commit."""
        with self.lock:
            repository = self.repositories.setdefault((kind, name), Repository(owner=name.split("/")[0]))
            sums = {path: self.keep(content) for path, content in files.items()}
            self.stored.update(sums.values())
            return repository.add(sums, "Seed", branch).sha

    def keep(self, content: bytes) -> str:
        sha = hashlib.sha256(content).hexdigest()
        self.blobs[sha] = content
        return sha

    def matching(self, method: str, path: str) -> Rule | None:
        with self.lock:
            for rule in self.rules:
                if rule.hits < rule.times and fnmatch(method, rule.method) and re.search(rule.path, path):
                    rule.hits += 1
                    return rule
        return None


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_lfs(path: str, size: int) -> bool:
    return path.endswith(LFS_SUFFIXES) or size > 10_000_000


class Handler(BaseHTTPRequestHandler):
    """What both servers do: faults, log, answers."""

    protocol_version = "HTTP/1.1"
    server_name = "api"
    hub: Hub
    rule: Rule | None = None

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr; `Hub.requests` is the log."""

    def handle_one(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        header = self.headers.get("Authorization")
        self.token = header.removeprefix("Bearer ") if header else None
        self.rule = self.hub.matching(self.command, self.path)
        if self.rule is not None and self.rule.action == "delay":
            time.sleep(self.rule.seconds)
        try:
            down = not self.hub.servers  # a connection that was kept alive outlives its server
            if down or (self.rule is not None and self.rule.action == "drop"):
                self.note(0)
                self.close_connection = True
                return
            if self.rule is not None and self.rule.action == "status":
                raise Refusal(self.rule.status, self.rule.code, f"injected {self.rule.status}")
            with self.hub.lock:
                self.route()
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message, **refusal_headers(refusal)}
            self.answer(refusal.body or {"error": refusal.message}, refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one

    def route(self) -> None:
        raise NotImplementedError

    def note(self, status: int) -> None:
        self.hub.requests.append(Request(self.server_name, self.command, self.path, self.token, status))

    def answer(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.note(status)
        sent = content
        action = None if self.rule is None else self.rule.action
        if action == "flip" and content:
            sent = bytes([content[0] ^ 1]) + content[1:] if len(content) < 9 else _flip(content)
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if action == "cut":
            sent = content[: len(content) // 2]
            self.close_connection = True
        self.wfile.write(sent)

    def ranged(self, content: bytes, headers: dict[str, str]) -> None:
        """Answer with the content, or with the part of it that was asked for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not found:
            self.answer(content, 200, headers)
            return
        start, stop = int(found[1]), int(found[2]) + 1 if found[2] else len(content)
        place = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        self.answer(content[start:stop], 206, {**headers, **place})


def _flip(content: bytes) -> bytes:
    """One bit of the last byte: in a safetensors file, of a weight."""
    return content[:-1] + bytes([content[-1] ^ 1])


def refusal_headers(refusal: Refusal) -> dict[str, str]:
    headers = {"X-Error-Code": refusal.code} if refusal.code else {}
    return {**headers, "Retry-After": "0"} if refusal.status in (429, 503) else headers


class BlobHandler(Handler):
    """Large files; a request that carries a token is a leak."""

    server_name = "blobs"

    def route(self) -> None:
        if self.token is not None:
            raise Refusal(400, None, "a token was sent to the storage server")
        action, oid = urlsplit(self.path).path.strip("/").split("/")
        if self.command == "PUT" and action == "upload":
            corrupt = self.rule is not None and self.rule.action == "corrupt"
            self.hub.blobs[oid] = _flip(self.body) if corrupt else self.body
            self.answer(b"", 200, {"ETag": f'"{oid}"'})
        elif action == "blob" and oid in self.hub.blobs:
            self.ranged(self.hub.blobs[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})
        else:
            raise Refusal(404, None, "no such object")


class ApiHandler(Handler):
    """The hub itself."""

    def route(self) -> None:
        if self.token is not None and self.token not in self.hub.tokens:
            raise Refusal(401, None, MESSAGES["WrongToken"])
        self.user, self.role = self.hub.tokens.get(self.token or "", (None, None))
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[:1] == ["api"]:
            self.api(parts[1:])
        elif parts[-4:] == ["info", "lfs", "objects", "batch"]:
            self.lfs_batch(*_repository_of(parts[:-4]))
        elif parts[-3:] == ["info", "lfs", "verify"]:
            self.lfs_verify()
        else:
            kind = parts.pop(0) if parts[0] in ("datasets", "spaces") else "models"
            if len(parts) < 5 or parts[2] != "resolve":
                raise Refusal(404, None, "no such page")
            self.resolve(kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def api(self, parts: list[str]) -> None:
        if parts == ["whoami-v2"]:
            if self.user is None:
                raise Refusal(401, None, MESSAGES["NoToken"])
            token = {"displayName": "test", "role": self.role}
            auth = {"type": "access_token", "accessToken": token}
            self.answer({"type": "user", "name": self.user, "fullname": self.user, "orgs": [], "auth": auth})
        elif parts == ["repos", "create"]:
            self.create()
        elif parts == ["validate-yaml"]:
            self.validate_yaml()
        elif parts == ["agent-harnesses"]:
            self.answer({"standardEnvVars": [], "harnesses": {}})
        elif parts[0] == "resolve-cache":
            self.cached(parts[1], "/".join(parts[2:4]), parts[4], "/".join(parts[5:]))
        elif parts[0] in ("models", "datasets", "spaces") and len(parts) >= 3:
            self.repository_api(parts[0], "/".join(parts[1:3]), parts[3:])
        else:
            raise Refusal(404, None, f"no endpoint {self.path}")

    def repository_api(self, kind: str, name: str, rest: list[str]) -> None:
        repository = self.readable(kind, name)
        what = rest[0] if rest else "info"
        if what in ("info", "revision"):
            self.info(kind, name, repository, rest[1] if rest[1:] else "main")
        elif what == "tree":
            self.tree(repository, rest[1], "/".join(rest[2:]))
        elif what == "paths-info":
            wanted = parse_qs(self.body.decode()).get("paths", [])
            files = self.at(repository, rest[1]).files
            self.answer([self.entry(path, files[path]) for path in wanted if path in files])
        elif what == "refs":
            self.refs(repository)
        elif what == "commits":
            self.commits(repository, rest[1])
        elif what == "branch":
            self.branch(repository, "/".join(rest[1:]))
        elif what == "tag":
            self.tag(repository, "/".join(rest[1:]))
        elif what == "preupload":
            self.preupload(repository, rest[1])
        elif what == "commit":
            self.commit(kind, name, repository, rest[1])
        elif what == "discussions":
            self.answer({"discussions": [], "count": 0, "start": 0})
        else:
            raise Refusal(404, None, f"no endpoint {self.path}")

    # --- who may do what

    def readable(self, kind: str, name: str) -> Repository:
        repository = self.hub.repositories.get((kind, name))
        if repository is None or (repository.private and repository.owner != self.user):
            status, message = (401, MESSAGES["NoToken"]) if self.user is None else (404, "Repository not found")
            raise Refusal(status, "RepoNotFound", message)
        return repository

    def check_writable(self, repository: Repository) -> None:
        if self.user is None:
            raise Refusal(401, None, MESSAGES["NoToken"])
        if self.role != "write" or repository.owner != self.user:
            raise Refusal(403, None, "You don't have the rights to write to this repository")

    def is_pull_request(self) -> bool:
        return self.query.get("create_pr", ["0"])[0].lower() in ("1", "true")

    def at(self, repository: Repository, revision: str) -> Commit:
        sha = repository.resolve(revision)
        if sha is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository.commits[sha]

    # --- repositories

    def create(self) -> None:
        wanted = json.loads(self.body)
        if self.user is None:
            raise Refusal(401, None, MESSAGES["NoToken"])
        owner = wanted.get("organization") or self.user
        if self.role != "write" or owner != self.user:
            raise Refusal(403, None, "You don't have the rights to create a repository here")
        kind = f"{wanted.get('type', 'model')}s"
        if kind == "spaces" and not wanted.get("sdk"):
            raise Refusal(400, None, "a Space needs an sdk")
        name = f"{owner}/{wanted['name']}"
        folder = "" if kind == "models" else f"{kind}/"
        made = {"url": f"{self.hub.url}/{folder}{name}", "name": name, "id": name}
        if (kind, name) in self.hub.repositories:
            raise Refusal(
                409, None, "You already created this repo", {"error": "You already created this repo", **made}
            )
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        repository = Repository(owner=owner, private=private)
        repository.add({".gitattributes": self.hub.keep(b"*.safetensors filter=lfs\n")}, "initial commit", "main")
        self.hub.repositories[kind, name] = repository
        self.answer(made)

    def info(self, kind: str, name: str, repository: Repository, revision: str) -> None:
        commit = self.at(repository, revision)
        siblings = []
        for path, sha in sorted(commit.files.items()):
            entry = self.entry(path, sha)
            siblings.append({"rfilename": path, "size": entry["size"], "blobId": entry["oid"]})
        about = {"id": name, "modelId": name, "author": repository.owner, "sha": commit.sha, "siblings": siblings}
        about |= {"private": repository.private, "gated": False, "disabled": False, "lastModified": CREATED}
        self.answer({**about, "createdAt": CREATED, "downloads": 0, "likes": 0, "tags": []})

    def entry(self, path: str, sha: str) -> dict[str, Any]:
        content = self.hub.blobs[sha]
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
        if is_lfs(path, len(content)):
            entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 134}
        return entry

    def tree(self, repository: Repository, revision: str, folder: str) -> None:
        files = self.at(repository, revision).files
        prefix = f"{folder}/" if folder else ""
        found = {path: sha for path, sha in files.items() if path.startswith(prefix)}
        if folder and not found:
            raise Refusal(404, "EntryNotFound", f"{folder} does not exist")
        entries = [self.entry(path, sha) for path, sha in sorted(found.items())]
        if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            folders = sorted({path[len(prefix) :].split("/")[0] for path in found if "/" in path[len(prefix) :]})
            entries = [entry for entry in entries if "/" not in entry["path"][len(prefix) :]]
            entries += [{"type": "directory", "path": prefix + name, "oid": "0" * 40, "size": 0} for name in folders]
        self.answer(entries)

    def refs(self, repository: Repository) -> None:
        def listed(names: dict[str, str], folder: str) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": sha} for n, sha in names.items()]

        branches = {name: sha for name, sha in repository.branches.items() if not name.startswith("refs/pr/")}
        answer = {"branches": listed(branches, "heads"), "tags": listed(repository.tags, "tags")}
        self.answer({**answer, "converts": [], "pullRequests": []})

    def commits(self, repository: Repository, revision: str) -> None:
        sha: str | None = self.at(repository, revision).sha
        found = []
        while sha is not None:
            commit = repository.commits[sha]
            author = {"user": repository.owner}
            found.append({"id": sha, "title": commit.title, "message": "", "date": CREATED, "authors": [author]})
            sha = commit.parent
        self.answer(found)

    def branch(self, repository: Repository, name: str) -> None:
        self.check_writable(repository)
        if self.command == "DELETE":
            if repository.branches.pop(name, None) is None:
                raise Refusal(404, "RevisionNotFound", f"no branch {name}")
        else:
            if name in repository.branches:
                raise Refusal(409, None, f"Reference already exists: {name}")
            start = json.loads(self.body or b"{}").get("startingPoint") or "main"
            repository.branches[name] = self.at(repository, start).sha
        self.answer({})

    def tag(self, repository: Repository, name: str) -> None:
        self.check_writable(repository)
        if self.command == "DELETE":
            if repository.tags.pop(name, None) is None:
                raise Refusal(404, "RevisionNotFound", f"no tag {name}")
        else:
            wanted = json.loads(self.body)["tag"]
            if wanted in repository.tags:
                raise Refusal(409, None, f"Tag reference exists already: {wanted}")
            repository.tags[wanted] = self.at(repository, name).sha
        self.answer({})

    def validate_yaml(self) -> None:
        import yaml

        text = json.loads(self.body)["content"]
        found = re.match(r"^---\r?\n(.*?)\r?\n---", text, re.DOTALL)
        try:
            data = yaml.safe_load(found[1]) if found else {}
        except yaml.YAMLError as error:
            raise Refusal(400, None, "bad YAML", {"errors": [{"message": str(error)}], "warnings": []}) from error
        wrong = [name for name in ("license", "library_name") if not isinstance((data or {}).get(name, ""), str)]
        if wrong:
            errors = [{"message": f'"{name}" must be a string'} for name in wrong]
            raise Refusal(400, None, "bad metadata", {"errors": errors, "warnings": []})
        self.answer({"errors": [], "warnings": []})

    # --- writing

    def preupload(self, repository: Repository, revision: str) -> None:
        if not self.is_pull_request():
            self.check_writable(repository)
        request = json.loads(self.body)
        files = self.at(repository, revision).files
        ignored = [line.strip() for line in (request.get("gitIgnore") or "").splitlines() if line.strip()]
        answer = []
        for file in request["files"]:
            path = file["path"]
            mode = "lfs" if is_lfs(path, file["size"]) else "regular"
            entry = {"path": path, "uploadMode": mode}
            entry["shouldIgnore"] = any(fnmatch(path, pattern) for pattern in ignored)
            if path in files:
                entry["oid"] = files[path] if mode == "lfs" else git_sha1(self.hub.blobs[files[path]])
            answer.append(entry)
        self.answer({"files": answer})

    def lfs_batch(self, kind: str, name: str) -> None:
        self.readable(kind, name)
        if self.role != "write":  # not the owner alone: pull requests upload too
            raise Refusal(403, None, "This token cannot write")
        objects = []
        for item in json.loads(self.body)["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.stored:
                upload = {"href": f"{self.hub.blob_url}/upload/{item['oid']}?signature=secret"}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/{name}.git/info/lfs/verify"}}
            objects.append(entry)
        self.answer({"transfer": "basic", "objects": objects})

    def lfs_verify(self) -> None:
        item = json.loads(self.body)
        content = self.hub.blobs.get(item["oid"], b"")
        if hashlib.sha256(content).hexdigest() != item["oid"]:
            self.hub.blobs.pop(item["oid"], None)
            raise Refusal(400, None, f"sha256 mismatch for {item['oid']}")
        self.hub.stored.add(item["oid"])
        self.answer({})

    def commit(self, kind: str, name: str, repository: Repository, revision: str) -> None:
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        pull = self.is_pull_request()
        if not pull:
            self.check_writable(repository)
        elif self.user is None:
            raise Refusal(401, None, MESSAGES["NoToken"])
        start = self.at(repository, revision)
        if header.get("parentCommit") not in (None, start.sha):
            raise Refusal(412, None, "A commit has happened since. Please refresh and try again.")
        if not pull and revision not in repository.branches:
            raise Refusal(400, None, f"{revision} is not a branch")
        files = self.changed(dict(start.files), lines)
        branch = revision
        if pull:
            repository.pulls += 1
            branch = f"refs/pr/{repository.pulls}"
            repository.branches[branch] = start.sha
        made = repository.add(files, header["summary"], branch)
        folder = "" if kind == "models" else f"{kind}/"
        page = f"{self.hub.url}/{folder}{name}"
        answer = {"success": True, "commitOid": made.sha, "commitUrl": f"{page}/commit/{made.sha}"}
        if pull:
            answer["pullRequestUrl"] = f"{page}/discussions/{repository.pulls}"
        self.answer(answer)

    def changed(self, files: dict[str, str], lines: list[dict[str, Any]]) -> dict[str, str]:
        for line in lines:
            key, value = line["key"], line["value"]
            if key == "file":
                files[value["path"]] = self.hub.keep(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                if value["oid"] not in self.hub.stored:
                    raise Refusal(400, None, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                files[value["path"]] = value["oid"]
            elif key == "deletedFile":
                files.pop(value["path"], None)
            elif key == "deletedFolder":
                prefix = value["path"].rstrip("/") + "/"
                files = {path: sha for path, sha in files.items() if not path.startswith(prefix)}
        return files

    # --- reading

    def resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repository = self.readable(kind, name)
        commit = self.at(repository, revision)
        headers = {"X-Repo-Commit": commit.sha}
        if path not in commit.files:
            gone = {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self.answer({"error": "Entry not found"}, 404, gone)
            return
        sha = commit.files[path]
        content = self.hub.blobs[sha]
        if not is_lfs(path, len(content)):
            place = f"/api/resolve-cache/{kind}/{name}/{commit.sha}/{quote(path)}"
            self.answer(b"", 307, {**headers, "Location": place, "ETag": f'"{git_sha1(content)}"'})
            return
        headers |= {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content)), "ETag": f'"{sha}"'}
        self.answer(b"", 302, {**headers, "Location": f"{self.hub.blob_url}/blob/{sha}?signature=secret"})

    def cached(self, kind: str, name: str, sha: str, path: str) -> None:
        repository = self.readable(kind, name)
        content = self.hub.blobs[repository.commits[sha].files[path]]
        self.ranged(content, {"X-Repo-Commit": sha, "ETag": f'"{git_sha1(content)}"', "Accept-Ranges": "bytes"})


def _repository_of(parts: list[str]) -> tuple[str, str]:
    """`[datasets/]ns/name.git` to kind and name."""
    kind = parts.pop(0) if parts[0] == "datasets" else "models"
    return kind, "/".join(parts).removesuffix(".git")
