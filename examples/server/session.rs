//! A session of the small network that reads handwritten digits, run by `rten`.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rten::{Model, NodeId, RunOptions, ThreadPool, Value};
use serde::Serialize;

/// The pixels of an input, 8 rows of 8.
pub(crate) const PIXELS: usize = 64;

/// The digits.
const CLASSES: usize = 10;

/// The largest file of a model, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// More than the steps in which the times of files are counted.
const TIME_STEP: Duration = Duration::from_millis(50);

pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// The file of a model. It is read once, so all sessions of a version are made of the same bytes, whatever happens to the
/// file meanwhile.
#[derive(Clone)]
pub(crate) struct ModelFile {
    path: PathBuf,
    bytes: Arc<OnceLock<Vec<u8>>>,
}

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
    /// Loads a model. A file that is half written is no model.
    pub(crate) fn load(bytes: Vec<u8>) -> Result<Self, String> {
        let model = Model::load(bytes).map_err(|error| format!("it is no model that can be run: {error}"))?;
        let node = |name| {
            let found = model.node_id(name);
            found.map_err(|_| format!("it has no `{name}`; `train.py` makes a model that has"))
        };
        let (pixels, embedding, probabilities) = (node("pixels")?, node("embedding")?, node("probabilities")?);
        Ok(Self { model, pixels, embedding, probabilities })
    }

    /// Runs the model on one input and on two, because a model may have been exported for one alone, and checks the shapes
    /// of its outputs.
    pub(crate) fn warm_up(&mut self) -> Result<(), String> {
        for (name, output, width) in
            [("embedding", self.embedding, None), ("probabilities", self.probabilities, Some(CLASSES))]
        {
            for inputs in [1, 2] {
                let rows = self.rows(vec![0.0; inputs * PIXELS], output);
                let rows = rows.map_err(|error| format!("it cannot be run on {inputs} × {PIXELS} pixels: {error}"))?;
                if width.is_some_and(|width| rows[0].len() != width) {
                    return Err(format!("its `{name}` has the wrong shape"));
                }
            }
        }
        Ok(())
    }

    /// One row for each input.
    fn rows(&mut self, pixels: Vec<f32>, output: NodeId) -> Result<Vec<Vec<f32>>, Failed> {
        let inputs = pixels.len() / PIXELS;
        let input = Value::from_shape([inputs, PIXELS], pixels)?;
        let options = RunOptions::default().with_thread_pool(Some(ONE_THREAD.with(Arc::clone)));
        let [output] = self.model.run_n(vec![(self.pixels, input.into())], [output], Some(options))?;
        let ([rows, width], values) = output.into_shape_vec::<f32, 2>()?;
        if rows != inputs || width == 0 {
            return Err(format!("it gave {rows} rows of {width} numbers for {inputs} inputs").into());
        }
        Ok(values.chunks(width).map(<[f32]>::to_vec).collect())
    }
}

// === impl ModelFile ===

impl ModelFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), bytes: Arc::default() }
    }

    /// A new session. The first one reads the file.
    pub(crate) fn session(&self) -> Result<Session, String> {
        let bytes = match self.bytes.get() {
            Some(bytes) => bytes,
            None => {
                let read = read(&self.path)?;
                self.bytes.get_or_init(|| read)
            }
        };
        Session::load(bytes.clone())
    }
}

/// Reads a file, and refuses it if its time or its length shows that it is written meanwhile. A write that takes long is
/// not seen, so new files should be renamed. A pipe has no end, so it is not opened.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unread = |error: io::Error| format!("it cannot be read: {error}");
    if !path.metadata().map_err(unread)?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let file = File::open(path).map_err(unread)?;
    let before = file.metadata().map_err(unread)?;
    if before.len() > MAX_FILE {
        return Err(format!("it has {} bytes, and {MAX_FILE} are the most", before.len()));
    }
    let written = before.modified().map_err(unread)?;
    if written.elapsed().unwrap_or_default() < TIME_STEP {
        // A later write may still get the same time.
        std::thread::sleep(TIME_STEP);
    }
    let mut bytes = Vec::new();
    (&file).take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unread)?;
    let after = file.metadata().map_err(unread)?;
    let is_same = written == after.modified().map_err(unread)?;
    if !is_same || [before.len(), after.len()] != [bytes.len() as u64; 2] {
        return Err("it changed while it was read; write a file beside it and rename that".to_owned());
    }
    Ok(bytes)
}

impl Prediction {
    fn new(probabilities: Vec<f32>) -> Self {
        let best = probabilities.iter().copied().enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other));
        let (class, probability) = best.unwrap_or_default();
        Self { class, probability, probabilities }
    }
}
