//! A session of the small network that reads handwritten digits, run by `rten`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use rten::{Model, NodeId, RunOptions, ThreadPool, Value};
use serde::Serialize;

/// The pixels of an input, 8 rows of 8.
pub(crate) const PIXELS: usize = 64;

/// The digits.
const CLASSES: usize = 10;

pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// The network of `model/train.py`, loaded for one request at a time.
pub(crate) struct Session {
    model: Model,
    pixels: NodeId,
    embedding: NodeId,
    probabilities: NodeId,
}

#[derive(Debug, Serialize)]
pub(crate) struct Prediction {
    pub(crate) class: usize,
    pub(crate) probability: f32,
    pub(crate) probabilities: Vec<f32>,
}

thread_local! {
    /// The thread on which `rten` runs the model. With one such thread for each worker, no more models run at once than the
    /// pool's limit allows. The thread starts at the worker's first run, inherits its `nice` value, and ends with the worker.
    static ONE_THREAD: Arc<ThreadPool> = Arc::new(ThreadPool::with_num_threads(1));
}

/// The prediction for each input: a client's list, or a batch of several clients.
pub(crate) fn classify(session: &mut Session, inputs: Vec<Vec<f32>>) -> Result<Vec<Prediction>, Failed> {
    let rows = session.rows(inputs.concat(), session.probabilities)?;
    Ok(rows.into_iter().map(Prediction::new).collect())
}

/// A vector of length 1 for each input.
pub(crate) fn embed(session: &mut Session, inputs: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>, Failed> {
    session.rows(inputs.concat(), session.embedding)
}

impl Session {
    /// Reads a model. A file that is half written is no model.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("it cannot be read: {error}"))?;
        let model = Model::load(bytes).map_err(|error| format!("it is no model that can be run: {error}"))?;
        let node = |name| {
            let found = model.node_id(name);
            found.map_err(|_| format!("it has no `{name}`; `train.py` makes a model that has"))
        };
        let (pixels, embedding, probabilities) = (node("pixels")?, node("embedding")?, node("probabilities")?);
        Ok(Self { model, pixels, embedding, probabilities })
    }

    /// Runs the model once, and checks the shapes of its outputs.
    pub(crate) fn warm_up(&mut self) -> Result<(), String> {
        for (name, output, width) in
            [("embedding", self.embedding, None), ("probabilities", self.probabilities, Some(CLASSES))]
        {
            let rows = self.rows(vec![0.0; PIXELS], output);
            let rows = rows.map_err(|error| format!("it cannot be run on {PIXELS} pixels: {error}"))?;
            if rows.len() != 1 || width.is_some_and(|width| rows[0].len() != width) {
                return Err(format!("its `{name}` has the wrong shape"));
            }
        }
        Ok(())
    }

    fn rows(&mut self, pixels: Vec<f32>, output: NodeId) -> Result<Vec<Vec<f32>>, Failed> {
        let input = Value::from_shape([pixels.len() / PIXELS, PIXELS], pixels)?;
        let options = RunOptions::default().with_thread_pool(Some(ONE_THREAD.with(Arc::clone)));
        let [output] = self.model.run_n(vec![(self.pixels, input.into())], [output], Some(options))?;
        let ([_, width], values) = output.into_shape_vec::<f32, 2>()?;
        Ok(values.chunks(width.max(1)).map(<[f32]>::to_vec).collect())
    }
}

impl Prediction {
    fn new(probabilities: Vec<f32>) -> Self {
        let best = probabilities.iter().copied().enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other));
        let (class, probability) = best.unwrap_or_default();
        Self { class, probability, probabilities }
    }
}
