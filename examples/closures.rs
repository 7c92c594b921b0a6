//! Closures, futures and batches in pools, without HTTP: their values, their errors and their panics.
//!
//! ```sh
//! cargo run --example closures
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, io};

use tower_offload::{Cpu, Io, PoolConfig, Pools, TaskError};

/// Which lines count.
#[derive(Clone, Copy)]
struct Options {
    skip_empty: bool,
}

fn count_lines(file: &Path, options: Options) -> io::Result<usize> {
    let text = fs::read_to_string(file)?;
    Ok(text.lines().filter(|line| !options.skip_empty || !line.trim().is_empty()).count())
}

fn largest_factor(mut number: u64) -> u64 {
    let mut factor = 2;
    while factor * factor <= number {
        if number.is_multiple_of(factor) { number /= factor } else { factor += 1 }
    }
    number
}

/// For code that blocks: submit, go on, and wait when the value is needed.
fn blocking(pools: &Pools) -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    // Arguments and options are captured.
    let options = Options { skip_empty: true };
    let lines = pools.submit_to_pool(Io, move || count_lines(&here, options))?;
    let factor = pools.submit_to_pool(Cpu, || largest_factor(600_851_475_143))?;
    println!("lines in Cargo.toml: {}", lines.wait()??);
    println!("largest prime factor: {}", factor.wait()?);

    let (sender, late) = mpsc::channel();
    let news = pools.submit_to_pool(Io, move || late.recv())?;
    let Err(news) = news.wait_timeout(Duration::from_millis(10)) else { return Err("there was no news yet".into()) };
    println!("no news after 10 ms; the task goes on");
    sender.send("good news")?;
    println!("then: {}", news.wait()??);
    Ok(())
}

/// For async code: await the value.
async fn awaiting(pools: &Pools) -> Result<(), Box<dyn Error>> {
    println!("sum: {}", pools.run_in_pool(Cpu, || (1..=1_000_000_u64).sum::<u64>()).await?);
    // A future runs in a pool as well; while it waits, it holds no thread.
    let waited = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        std::thread::current().name().map(str::to_owned)
    };
    println!("a future on {}", pools.run_in_pool(Io, waited).await?.unwrap_or_default());

    // At most four of the batch are in the pool at once; the results come in the order of the tasks.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files: Vec<PathBuf> = fs::read_dir(source)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    let tasks = files.into_iter().filter(|file| file.is_file());
    let tasks = tasks.map(|file| move || count_lines(&file, Options { skip_empty: false }));
    let counted = pools.batch_executor("io", 4)?.run_all(tasks).await;
    let lines: Vec<usize> = counted.into_iter().flatten().collect::<io::Result<_>>()?;
    println!("batch: {} files with {} lines", lines.len(), lines.iter().sum::<usize>());

    // The three ways to fail: the function's own error, a panic, and a pool that does not take the task.
    let own = pools.run_in_pool(Io, || count_lines(Path::new("no such file"), Options { skip_empty: true })).await?;
    println!("own error: {:?}", own.map_err(|error| error.kind()));
    match pools.run_in_pool(Cpu, || largest_factor("twelve".parse().expect("a number"))).await {
        Err(TaskError::Panicked(panic)) => println!("panic: {}", panic.message()),
        other => println!("unexpected: {other:?}"),
    }
    let running = pools.submit_to_pool("small", std::future::pending::<()>())?;
    let rejected = pools.run_in_pool("small", || ()).await.expect_err("the only worker is active");
    println!("rejected: {rejected}");
    running.cancel();
    println!("unknown: {}", pools.run_in_pool("cpus", || ()).await.expect_err("there is no such pool"));
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let pools = Pools::builder().pool("small", PoolConfig::new(1).queue_capacity(0)).build()?;
    blocking(&pools)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(awaiting(&pools))
}
