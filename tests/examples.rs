//! Runs the small examples: each is built, started, sent requests, and stopped.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// A command that runs the example of this name, with the profile of these tests.
fn example(name: &str) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--message-format=json", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.stderr(Stdio::inherit()).output().expect("cargo runs, since it runs these tests");
    assert!(built.status.success(), "the example `{name}` does not build");
    let messages = String::from_utf8(built.stdout).expect("cargo writes text");
    let executable = messages
        .lines()
        .map(|message| serde_json::from_str::<serde_json::Value>(message).expect("cargo writes JSON"))
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(str::to_owned));
    Command::new(executable.expect("an example has an executable"))
}

/// A running server. Dropping the value ends it.
struct Server {
    process: Child,
    /// The address, without `http://`.
    address: String,
}

impl Server {
    /// Starts the server, and waits until it listens.
    fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("what was built runs");
        let stdout = process.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("it writes text");
        let address = line.trim_end().strip_prefix("listening on http://");
        Self { address: address.unwrap_or_else(|| panic!("it does not listen: {line:?}")).to_owned(), process }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("it is still there");
        self.process.wait().expect("it ends when it is killed");
    }
}

fn stdout_of(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("what was built runs");
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("it writes text")
}

/// Status and body of the answer to a POST of `body`, or to a GET if there is none.
async fn ask(url: String, http2: bool, body: &'static str) -> (u16, String) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
    let method = if body.is_empty() { "GET" } else { "POST" };
    let request = http::Request::builder().method(method).uri(url).body(Full::from(body)).expect("the parts are valid");
    let response = client.request(request).await.expect("the server answers");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("the body is whole").to_bytes();
    (head.status.as_u16(), String::from_utf8(body.into()).expect("the body is text"))
}

#[tokio::test]
async fn the_hyper_server_counts_primes_on_a_worker() {
    let server = Server::start(example("hyper").arg("127.0.0.1:0"));
    for http2 in [false, true] {
        let (status, body) = ask(format!("http://{}/primes/1000", server.address), http2, "").await;
        assert_eq!(status, 200);
        assert!(body.starts_with("168 primes up to 1000, counted on offload-cpu-"), "{body}");
    }
    assert_eq!(ask(format!("http://{}/primes/many", server.address), false, "").await.0, 400);
}

#[tokio::test]
async fn the_composed_server_counts_words() {
    let server = Server::start(example("service_builder").arg("127.0.0.1:0").stderr(Stdio::null()));
    let words = ask(format!("http://{}/words", server.address), false, "The pool, the worker and the queue.").await;
    assert_eq!(words, (200, r#"{"total":7,"different":5,"most_frequent":"the"}"#.to_owned()));
    assert_eq!(ask(format!("http://{}/health", server.address), false, "").await, (200, "ok\n".to_owned()));
}

#[test]
fn the_tonic_server_answers_its_client() {
    let server = Server::start(example("tonic").args(["serve", "127.0.0.1:0"]));
    let asked = stdout_of(example("tonic").args(["ask", &server.address, "600851475143"]));
    assert_eq!(asked, "prime factors of 600851475143: [71, 839, 1471, 6857]\n2 3 5 7 11 13 17 19 23 29 \n");
}

/// As a probe does, while the server serves.
#[tokio::test]
async fn the_tonic_server_answers_health_checks() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

    let server = Server::start(example("tonic").args(["serve", "127.0.0.1:0"]));
    let channel = tonic::transport::Endpoint::new(format!("http://{}", server.address)).expect("an address");
    let mut health = HealthClient::new(channel.connect().await.expect("it listens"));
    for service in ["", "primes.Primes"] {
        let check = health.check(HealthCheckRequest { service: service.to_owned() }).await.expect("it is answered");
        assert_eq!(check.into_inner().status(), ServingStatus::Serving, "{service}");
    }
}

#[test]
fn a_refused_request_is_retried_until_it_runs_once() {
    let printed = stdout_of(&mut example("retry"));
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(
        lines,
        [
            "square: 1",
            "square: 4",
            "square: 9",
            "square: 16",
            "square: 25",
            "each ran once: 5 runs; some were rejected first: true",
            "after 1 run: pool `cpu` gave no answer: the task panicked",
        ]
    );
}

#[test]
fn closures_print_what_they_did() {
    let printed = stdout_of(&mut example("closures"));
    let lines: Vec<_> = printed.lines().collect();
    let starts = [
        "lines in Cargo.toml: ",
        "largest prime factor: 6857",
        "no news after 10 ms; the task goes on",
        "then: good news",
        "sum: 500000500000",
        "a future on offload-io-",
        "batch: ",
        "own error: Err(NotFound)",
        "panic: a number: ParseIntError { kind: InvalidDigit }",
        "rejected: pool `small` gave no answer: its queue is full",
        "unknown: there is no pool `cpus`; the pools are `io`, `cpu`, `inference`, `embedding`, `db`, `small`",
    ];
    assert_eq!(lines.len(), starts.len(), "{printed}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "`{line}` does not start with `{start}`");
    }
}

#[test]
fn an_example_that_cannot_start_says_why_in_words() {
    for (name, arguments) in
        [("hyper", &["1.2.3"][..]), ("service_builder", &["1.2.3"]), ("tonic", &["serve", "1.2.3"])]
    {
        let Output { status, stderr, .. } = example(name).args(arguments).output().expect("what was built runs");
        let stderr = String::from_utf8(stderr).expect("it writes text");
        assert_eq!(status.code(), Some(1), "{name}: {stderr}");
        assert!(
            stderr.starts_with("Error: \"cannot listen on 1.2.3: ") && stderr.lines().count() == 1,
            "{name}: {stderr}"
        );
    }
}
