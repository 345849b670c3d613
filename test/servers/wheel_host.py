"""The program of a ClickHouse that comes in a wheel of PyPI.

`python3 wheel_host.py MODULE server CONFIG` runs the real server that lies in an older wheel.
`python3 wheel_host.py MODULE front PORT DATA` puts the HTTP interface before the engine of a newer one,
which holds no server: the engine reads, judges and stores, this file only carries text to it.

MODULE is the folder of `_chdb.abi3.so`. Neither call returns.
"""

import ctypes
import gzip
import http.server
import os
import re
import sys
import threading
import urllib.parse

module, mode = sys.argv[1:3]
folder = os.getcwd()
sys.path.insert(0, module)
os.chdir(module)
import _chdb  # noqa: E402  (also prepares the memory of the older library)

os.chdir(folder)


def serve(config):
    library = ctypes.CDLL(os.path.join(module, "_chdb.abi3.so"))
    args = ["clickhouse-server", f"--config-file={config}"]
    argv = (ctypes.c_char_p * (len(args) + 1))(*[arg.encode() for arg in args], None)
    sys.exit(library["_Z25mainEntryClickHouseServeriPPc"](len(args), argv))


NOT_SETTINGS = {"query", "database", "default_format", "user", "password", "wait_end_of_query",
                "sieve_format", "sieve_structure", "query_id",
                # All statements share one session, which would stay so.
                "readonly"}


def literal(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Engine:
    def __init__(self, data):
        self.connection = _chdb.connect(data)
        self.lock = threading.Lock()
        # Rows stand in the text of some statements.
        self.ask("SET max_query_size = 1000000000")
        self.version = self.ask("SELECT version()").strip()

    def ask(self, sql, form="TabSeparated"):
        return self.connection.query(sql, form).bytes().decode("utf-8", "replace")

    def run(self, sql, form, settings):
        """One statement under settings of its own."""
        with self.lock:
            done = []
            try:
                for name, value in settings.items():
                    done.append(name)
                    self.ask(f"SET {name} = {literal(value)}")
                return self.ask(sql, form)
            finally:
                for name in done:
                    try:
                        if not name.startswith("param_"):
                            self.ask(f"SET {name} = DEFAULT")
                    except Exception:
                        pass


def front(port, data):
    engine = Engine(data)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def body(self):
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                parts.append(self.rfile.read(size))
                self.rfile.readline()
                if size == 0:
                    return b"".join(parts)

        def answer(self, status, text, code=None):
            body = text.encode()
            self.send_response(status)
            self.send_header("X-ClickHouse-Server-Display-Name", "wheel")
            if code is not None:
                self.send_header("X-ClickHouse-Exception-Code", code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.do_POST()

        def do_POST(self):
            url = urllib.parse.urlsplit(self.path)
            try:
                body = self.body()
            except (ValueError, OSError):
                self.close_connection = True
                return
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if url.path == "/ping":
                return self.answer(200, "Ok.\n")
            asked = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
            settings = {k: v for k, v in asked.items() if k not in NOT_SETTINGS}
            sql = asked.get("query", "")
            form = asked.get("default_format", "TabSeparated")
            if "sieve_structure" in asked:
                rows = body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0].decode("utf-8", "replace")
                table = f"format(JSONEachRow, {literal(asked['sieve_structure'])}, {literal(rows)})"
                sql = sql.replace("FROM sieve", f"FROM {table}")
            elif "FROM input(" in sql:
                # The engine has no input() without a server; what is read is read the same.
                sql = re.sub(
                    r"FROM input\(('(?:[^'\\]|\\.)*')\) FORMAT JSONEachRow$",
                    lambda found: f"FROM format(JSONEachRow, {found[1]}, "
                    + literal(body.decode("utf-8", "surrogateescape")) + ")",
                    sql,
                )
            elif body or not sql:
                sql = (sql + "\n" if sql else "") + body.decode("utf-8", "surrogateescape")
            elif re.search(r"^INSERT[^\n]*FORMAT \w+$", sql):
                sql += "\n"
            named = re.search(r"\sFORMAT (\w+)\s*$", sql)
            if named and not sql.startswith("INSERT"):
                sql, form = sql[: named.start()], named.group(1)
            try:
                self.answer(200, engine.run(sql, form, settings))
            except Exception as problem:
                text = str(problem).strip()
                # An exception of a statement that ran elsewhere holds the one that a server shows.
                inner = r"Code: \d+\. DB::Exception: (Code: \d+\. DB::.*?) \(version [^)]*\)"
                wrapped = re.match(inner, text, re.S)
                text = wrapped[1] if wrapped else re.sub(r" \(version [^)]*\)$", "", text)
                code = (re.search(r"Code: (\d+)", text) or [None, "1002"])[1]
                self.answer(500, f"{text} (version {engine.version})\n", code)

    http.server.ThreadingHTTPServer.daemon_threads = True
    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if mode == "server":
    serve(sys.argv[3])
else:
    front(sys.argv[3], sys.argv[4])
