//! Measures tower-offload and its alternatives in one run: `cargo run --release -p benches`.

mod batch;
mod batch_arrivals;
mod batch_functions;
mod batch_network;
mod batch_open_loop;
mod batch_windows;
mod bodies;
mod body_server;
mod body_source;
mod child;
mod client;
mod elsewhere;
mod everything;
mod harness;
mod health;
mod http;
mod in_process;
mod isolation;
mod kernel;
mod memory;
mod observed;
mod overload;
mod perf;
mod pools;
mod profile;
mod queue;
mod rejection;
mod request_bodies;
mod scale;
mod server;
mod slots;
mod slots_memory;
mod slots_sessions;
mod slots_sqlite;
mod streams;
mod task;
mod wake_then_block;
mod ways;

use std::process::ExitCode;
use std::time::Instant;

use lexopt::{Arg, Parser, ValueExt};
use serde_json::json;

use crate::harness::{Harness, Options};
use crate::ways::Speed;

const USAGE: &str = "usage: cargo run --release -p benches -- [OPTIONS]

  --quick        one short round each: to see that everything runs, not how fast
  --only NAME    only the scenarios whose name begins with NAME; may be given more than once
  --json FILE    the figures, also as JSON
  --profile N    100,000 empty tasks at N callers and nothing else, for a profiler
  --help         this text";

fn main() -> ExitCode {
    if child::play(play) {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays one part of a scenario, in a child process.
fn play(part: &str, kind: &str, speed: Speed) {
    match part {
        server::AROUND => server::around(kind, speed),
        server::INSIDE => server::inside(kind, speed),
        body_server::PART => body_server::play(kind, speed),
        everything::PART => everything::play(kind, speed),
        "memory" => memory::play(kind),
        "observed" => observed::play(kind, speed),
        "overload" => overload::play(kind),
        "pools" => pools::play(speed),
        request_bodies::PART => request_bodies::play(kind, speed),
        slots_memory::PART => slots_memory::play(kind, speed),
        _ => panic!("there is no part `{part}`"),
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = Options::default();
    let mut json_file = None;
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("quick") => options.quick = true,
            Arg::Long("only") => options.only.push(parser.value()?.parse()?),
            Arg::Long("json") => json_file = Some(parser.value()?),
            Arg::Long("profile") => {
                profile::run(parser.value()?.parse()?);
                return Ok(());
            }
            Arg::Long("help") => {
                println!("{USAGE}");
                return Ok(());
            }
            other => return Err(format!("{}\n{USAGE}", other.unexpected()).into()),
        }
    }
    let began = Instant::now();
    let machine = json!({ "cores": ways::cores(), "system": std::env::consts::OS, "load_average": load_average() });
    println!("Machine: {machine}\n");
    let speed = Speed::measure();
    let mut harness = Harness::new(options);
    task::run(&mut harness, speed);
    http::run(&mut harness, speed);
    request_bodies::run(&mut harness, speed);
    isolation::run(&mut harness, speed);
    pools::run(&mut harness, speed);
    overload::run(&mut harness, speed);
    batch::run(&mut harness);
    batch_open_loop::run(&mut harness);
    wake_then_block::run(&mut harness);
    bodies::run(&mut harness, speed);
    memory::run(&mut harness, speed);
    queue::run(&mut harness);
    scale::run(&mut harness);
    rejection::run(&mut harness);
    slots::run(&mut harness, speed);
    slots_sessions::run(&mut harness);
    slots_memory::run(&mut harness, speed);
    slots_sqlite::run(&mut harness);
    observed::run(&mut harness, speed);
    in_process::run(&mut harness);
    everything::run(&mut harness, speed);
    println!("Took {:.0} s.", began.elapsed().as_secs_f64());
    if let Some(file) = json_file {
        let text = serde_json::to_string_pretty(&harness.into_json(machine))?;
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// How many threads wanted to run in the last minute. Figures taken while others work are not worth much.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}
