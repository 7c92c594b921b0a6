//! The functions of lists that the batch scenarios run: a small model, a larger one, and one that only blocks.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rten::{Model, NodeId, RunOptions, ThreadPool, Value};

use crate::batch_network as network;

/// The values that a model takes, or nothing.
pub type Item = Arc<[f32]>;

/// The values that a model gives, or nothing.
pub type Output = Vec<f32>;

/// A function of lists. It gives a result for each item.
pub type Function = Arc<dyn Fn(Vec<Item>) -> Vec<Output> + Send + Sync>;

/// The time of a list of *n* items: `fixed` + *n* · `each`.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub fixed: Duration,
    pub each: Duration,
}

const PIXELS: usize = 64;

/// A model that one thread runs at a time.
pub struct Session {
    model: Model,
    input: NodeId,
    output: NodeId,
}

thread_local! {
    /// As in the example server: one thread of `rten` for each worker.
    static ONE_THREAD: Arc<ThreadPool> = Arc::new(ThreadPool::with_num_threads(1));
}

/// An image.
pub fn image() -> Item {
    Arc::new([4.0; PIXELS])
}

/// An item of the network.
pub fn features() -> Item {
    Arc::new([0.5; network::FEATURES])
}

/// The model of the example server, which recognises handwritten digits.
pub fn digits() -> Function {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/server/model/digits.onnx");
    Session::new(std::fs::read(path).expect("the model is in the repository"), "pixels", "probabilities")
        .into_function()
}

/// The network of some size.
pub fn network() -> Function {
    Session::of_network(network::WIDTH).into_function()
}

/// A network with about four times as many weights.
pub fn large_network() -> Function {
    Session::of_network(network::LARGE_WIDTH).into_function()
}

/// A function that blocks, as a call of a device or of a remote service does.
pub fn blocking(cost: Cost) -> Function {
    Arc::new(move |items| {
        thread::sleep(cost.of(items.len()));
        vec![Output::new(); items.len()]
    })
}

/// Lists in a second, called one after the other by one thread: no way to form batches of this size can do more.
pub fn lists_per_second(function: &Function, item: &Item, size: usize, span: Duration) -> f64 {
    let (function, list) = (function.clone(), vec![item.clone(); size]);
    let caller = thread::spawn(move || {
        // The first call starts the thread of `rten`.
        function(list.clone());
        let (mut lists, began) = (0.0, Instant::now());
        while began.elapsed() < span {
            function(list.clone());
            lists += 1.0;
        }
        lists / began.elapsed().as_secs_f64()
    });
    caller.join().expect("the function does not panic")
}

// === impl Session ===

impl Session {
    fn new(onnx: Vec<u8>, input: &str, output: &str) -> Self {
        let model = Model::load(onnx).expect("it is a model");
        let node = |name| model.node_id(name).expect("the model has this node");
        let (input, output) = (node(input), node(output));
        Self { model, input, output }
    }

    /// A network with so many values between its layers.
    pub fn of_network(width: usize) -> Self {
        Self::new(network::onnx(width), network::INPUT, network::OUTPUT)
    }

    /// Runs the model on a list.
    pub fn run(&self, items: &[Item]) -> Vec<Output> {
        let input = Value::from_shape([items.len(), items[0].len()], items.concat()).expect("all items are alike");
        let options = RunOptions::default().with_thread_pool(Some(ONE_THREAD.with(Arc::clone)));
        let [output] = self
            .model
            .run_n(vec![(self.input, input.into())], [self.output], Some(options))
            .expect("the model runs on such items");
        let ([_, width], values) = output.into_shape_vec::<f32, 2>().expect("there is a row for each item");
        values.chunks(width).map(<[f32]>::to_vec).collect()
    }

    fn into_function(self) -> Function {
        Arc::new(move |items| self.run(&items))
    }
}

// === impl Cost ===

impl Cost {
    /// The time of a list of so many items.
    pub fn of(self, items: usize) -> Duration {
        self.fixed + self.each * u32::try_from(items).expect("a list is short")
    }

    /// The line through the times of lists of 1 to 32 items, by least squares.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    pub fn measure(function: &Function, item: &Item, span: Duration) -> Self {
        let sizes = [1, 2, 4, 8, 16, 32];
        // The best of several: the others were disturbed.
        let best = |size| (0..5).map(|_| lists_per_second(function, item, size, span / 30)).fold(0.0, f64::max);
        let times = sizes.map(|size| (size as f64, 1.0 / best(size)));
        let mean = |of: fn(&(f64, f64)) -> f64| times.iter().map(of).sum::<f64>() / times.len() as f64;
        let (x, y) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
        let each = (mean(|(x, y)| x * y) - x * y) / (mean(|(x, _)| x * x) - x * x);
        let seconds = |time: f64| Duration::from_secs_f64(time.max(0.0));
        Self { fixed: seconds(each.mul_add(-x, y)), each: seconds(each) }
    }
}
