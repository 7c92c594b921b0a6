//! Starts the example server in a temporary folder, and sends it HTTP requests.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The time after which a step counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A temporary folder with settings, files and a database. Dropping the value deletes it.
pub(crate) struct Folder {
    folder: tempfile::TempDir,
}

/// A running server. Dropping the value kills it.
pub(crate) struct Example {
    child: Child,
    address: SocketAddr,
}

#[derive(Clone)]
pub(crate) struct Client {
    client: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

/// The path of the example server. Cargo builds the examples before it runs the tests.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join("server");
    assert!(program.exists(), "{} is not built: `cargo build --example server` does", program.display());
    program
}

// === impl Folder ===

impl Folder {
    pub(crate) fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(this.path("files")).unwrap();
        std::fs::write(this.path("files/greeting.txt"), "hello from the disk\n").unwrap();
        // The settings that the project shows, with the paths of this folder.
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let shown = std::fs::read_to_string(root.join("config.yaml")).unwrap();
        let (shown, _) = shown.split_once("\napp:\n").expect("config.yaml has the section `app`");
        this.configure(&format!(
            "{shown}\napp:\n  files_dir: {}\n  database: {}\n  model: {}\n",
            this.path("files").display(),
            this.path("notes.db").display(),
            root.join("examples/server/model/digits.onnx").display(),
        ));
        this
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self) -> String {
        std::fs::read_to_string(self.path("config.yaml")).unwrap()
    }

    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.path("config.yaml"), text).unwrap();
    }

    /// The server in this folder, with its `config.yaml`, not yet started.
    fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.current_dir(self.folder.path()).kill_on_drop(true).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }
}

// === impl Example ===

impl Example {
    /// Starts the server on a free port, and waits until it listens.
    pub(crate) async fn start(folder: &Folder) -> Self {
        Self::start_with(folder, |_| {}).await
    }

    /// The same, after `prepare` has changed how the program is run.
    pub(crate) async fn start_with(folder: &Folder, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = folder.command();
        command.args(["--bind", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("the server ended at its start");
        let address = line.strip_prefix("listening on http://").expect(&line).parse().unwrap();
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap_or_default();
        assert_eq!(line, format!("the pools, live: http://{address}/"));
        Self { child, address }
    }

    /// Runs a server that is expected not to start, and returns its exit code and its output.
    pub(crate) async fn fail(folder: &Folder, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = folder.command();
        if !arguments.contains(&"--bind") {
            command.args(["--bind", "127.0.0.1:0"]);
        }
        let output = timeout(PATIENCE, command.args(arguments).output()).await.expect("the server started").unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the server takes no further connection.
    pub(crate) async fn closed_its_port(&self) {
        let refused = async {
            while tokio::net::TcpStream::connect(self.address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, refused).await.expect("the server still listens");
    }

    pub(crate) fn client(&self) -> Client {
        Client::of(self.address)
    }

    /// A client that speaks HTTP/2, without TLS.
    pub(crate) fn client_http2(&self) -> Client {
        let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        Client { client: builder.http2_only(true).build_http(), address: self.address }
    }

    /// Kills the server with SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// The process's id, until the process was waited for.
    pub(crate) fn id(&self) -> rustix::process::Pid {
        let id = self.child.id().expect("the server has not been waited for");
        rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    pub(crate) fn terminate(&self) {
        rustix::process::kill_process(self.id(), rustix::process::Signal::TERM).unwrap();
    }

    /// The peak memory of the server.
    pub(crate) fn peak_memory_mib(&self) -> u64 {
        let id = self.child.id().expect("the server has not been waited for");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.expect("the server did not end").unwrap().code()
    }

    /// Ends the server as a service manager does.
    pub(crate) async fn stop(mut self) {
        self.terminate();
        assert_eq!(self.exit_code().await, Some(0));
    }
}

// === impl Client ===

impl Client {
    pub(crate) fn of(address: SocketAddr) -> Self {
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        Self { client, address }
    }

    pub(crate) async fn try_get(&self, path: &str) -> io::Result<Answer> {
        self.try_send(Method::GET, path, "", Bytes::new()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "", Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).await.unwrap()
    }

    pub(crate) async fn try_post(&self, path: &str, body: &Value) -> io::Result<Answer> {
        self.try_send(Method::POST, path, "application/json", body.to_string().into()).await
    }

    /// A JSON body, with further headers.
    pub(crate) async fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.request(Method::POST, path, &headers, body.to_string().into()).await.unwrap()
    }

    pub(crate) async fn send(&self, method: Method, path: &str, content_type: &str, body: Bytes) -> Answer {
        self.try_send(method, path, content_type, body).await.unwrap()
    }

    async fn try_send(&self, method: Method, path: &str, content_type: &str, body: Bytes) -> io::Result<Answer> {
        let headers = [("content-type", content_type)];
        self.request(method, path, &headers[..usize::from(!content_type.is_empty())], body).await
    }

    async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> io::Result<Answer> {
        let request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Full::new(body)).unwrap();
        let response = timeout(PATIENCE, self.client.request(request)).await?.map_err(io::Error::other)?;
        let (parts, body) = response.into_parts();
        let body = timeout(PATIENCE, body.collect()).await?.map_err(io::Error::other)?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

// === impl Answer ===

impl Answer {
    /// The body of a response with a status of 200.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self.json()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
