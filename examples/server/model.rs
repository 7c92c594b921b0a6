//! `POST /v1/embeddings`, `POST /v1/classify` and its stream: a small network that reads handwritten digits, run by `rten`.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use rten::{Model, NodeId, RunOptions, ThreadPool, Value};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_stream::Stream;

use super::body::Json;
use super::problem::Problem;

/// The pixels of an input, 8 rows of 8.
const PIXELS: usize = 64;

/// The most inputs of one request.
const MAX_INPUTS: usize = 256;

/// The brightest pixel.
const BRIGHTEST: f32 = 16.0;

/// The network of `model/train.py`.
pub(crate) struct Digits {
    model: Model,
    pixels: NodeId,
    embedding: NodeId,
    probabilities: NodeId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    inputs: Vec<Vec<f32>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Embeddings {
    embeddings: Vec<Vec<f32>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Predictions {
    predictions: Vec<Prediction>,
}

#[derive(Debug, Serialize)]
struct Prediction {
    class: usize,
    probability: f32,
    probabilities: Vec<f32>,
}

/// One line of a stream of inputs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    input: Vec<f32>,
}

/// The lines of a body that are not blank, with their numbers from 1.
struct Lines {
    rest: Bytes,
    number: usize,
}

thread_local! {
    /// The thread on which `rten` runs the model. With one such thread for each worker, no more models run at once than the
    /// pool's limit allows. The thread starts at the worker's first run, inherits its `nice` value, and ends with the worker.
    static ONE_THREAD: Arc<ThreadPool> = Arc::new(ThreadPool::with_num_threads(1));
}

/// Vectors of length 1, one for each input.
pub(crate) async fn embeddings(
    State(digits): State<Arc<Digits>>,
    Json(inputs): Json<Inputs>,
) -> Result<Json<Embeddings>, Problem> {
    let embeddings = digits.run(&inputs, digits.embedding)?;
    Ok(Json(Embeddings { embeddings }))
}

/// The most probable digit of each input, with the probabilities of all ten.
pub(crate) async fn classify(
    State(digits): State<Arc<Digits>>,
    Json(inputs): Json<Inputs>,
) -> Result<Json<Predictions>, Problem> {
    let rows = digits.run(&inputs, digits.probabilities)?;
    Ok(Json(Predictions { predictions: rows.into_iter().map(Prediction::new).collect() }))
}

/// Server-sent events, one for each line of the body: the prediction for its input, or what is wrong with the line. The
/// last event counts the lines, so that a client can tell that none is missing.
///
/// The worker that polls the body of the response runs the model, when the client has taken the events before.
pub(crate) async fn classify_lines(
    State(digits): State<Arc<Digits>>,
    body: Bytes,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let lines = Lines { rest: body, number: 0 };
    let count = Lines { rest: lines.rest.clone(), ..lines }.count();
    if count == 0 {
        return Err(Problem::bad_request("the body has no line; give lines such as {\"input\": [64 numbers]}"));
    }
    let events = lines.map(move |(number, line)| match digits.classify_line(&line) {
        Ok(prediction) => event("prediction", &prediction).id(number.to_string()),
        Err(problem) => event("problem", &problem.document()).id(number.to_string()),
    });
    let events = events.chain(std::iter::once_with(move || event("end", &json!({ "lines": count }))));
    Ok(Sse::new(tokio_stream::iter(events.map(Ok))))
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).json_data(data).expect("numbers and texts can be written as JSON")
}

// === impl Lines ===

impl Iterator for Lines {
    type Item = (usize, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let length = self.rest.iter().position(|byte| *byte == b'\n').map_or(self.rest.len(), |end| end + 1);
            let line = self.rest.split_to(length);
            self.number += 1;
            if !line.trim_ascii().is_empty() {
                return Some((self.number, line));
            }
        }
        None
    }
}

// === impl Digits ===

impl Digits {
    /// Reads the model and tries it once.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let bytes = std::fs::read(path).map_err(|error| format!("app.model: `{shown}` cannot be read: {error}"))?;
        let model =
            Model::load(bytes).map_err(|error| format!("app.model: `{shown}` is no model that can be run: {error}"))?;
        let node = |name| {
            let found = model.node_id(name);
            found.map_err(|_| format!("app.model: `{shown}` has no `{name}`; `train.py` makes one that has"))
        };
        let (pixels, embedding, probabilities) = (node("pixels")?, node("embedding")?, node("probabilities")?);
        let digits = Self { model, pixels, embedding, probabilities };
        for (name, output, width) in [("embedding", embedding, None), ("probabilities", probabilities, Some(10))] {
            let rows = digits
                .rows(vec![0.0; PIXELS], output)
                .map_err(|error| format!("app.model: `{shown}` cannot be run on {PIXELS} pixels: {error}"))?;
            if rows.len() != 1 || width.is_some_and(|width| rows[0].len() != width) {
                return Err(format!("app.model: `{name}` of `{shown}` has the wrong shape"));
            }
        }
        Ok(digits)
    }

    fn run(&self, inputs: &Inputs, output: NodeId) -> Result<Vec<Vec<f32>>, Problem> {
        let pixels = inputs.check()?;
        self.rows(pixels, output).map_err(|error| Problem::internal("the model could not be run", &error))
    }

    fn classify_line(&self, line: &[u8]) -> Result<Prediction, Problem> {
        let Line { input } = serde_json::from_slice(line).map_err(|error| Problem::bad_request(error.to_string()))?;
        check(&input, || "input".to_owned())?;
        let rows = self.rows(input, self.probabilities);
        let mut rows = rows.map_err(|error| Problem::internal("the model could not be run", &error))?;
        Ok(Prediction::new(rows.pop().unwrap_or_default()))
    }

    fn rows(&self, pixels: Vec<f32>, output: NodeId) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error>> {
        let input = Value::from_shape([pixels.len() / PIXELS, PIXELS], pixels)?;
        let options = RunOptions::default().with_thread_pool(Some(ONE_THREAD.with(Arc::clone)));
        let [output] = self.model.run_n(vec![(self.pixels, input.into())], [output], Some(options))?;
        let ([_, width], values) = output.into_shape_vec::<f32, 2>()?;
        Ok(values.chunks(width.max(1)).map(<[f32]>::to_vec).collect())
    }
}

// === impl Inputs ===

impl Inputs {
    /// All inputs one after the other, if each is an image.
    fn check(&self) -> Result<Vec<f32>, Problem> {
        let count = self.inputs.len();
        if !(1..=MAX_INPUTS).contains(&count) {
            return Err(Problem::bad_request(format!("inputs: there are {count}; give 1 to {MAX_INPUTS}")));
        }
        for (index, input) in self.inputs.iter().enumerate() {
            check(input, || format!("inputs[{index}]"))?;
        }
        Ok(self.inputs.concat())
    }
}

/// Checks that an input is an image.
fn check(input: &[f32], name: impl Fn() -> String) -> Result<(), Problem> {
    if input.len() != PIXELS {
        let (name, length) = (name(), input.len());
        return Err(Problem::bad_request(format!("{name}: it has {length} numbers; give {PIXELS}")));
    }
    // Written so that NaN is rejected as well.
    if let Some(pixel) = input.iter().position(|value| !(0.0..=BRIGHTEST).contains(value)) {
        let (name, value) = (name(), input[pixel]);
        return Err(Problem::bad_request(format!("{name}[{pixel}]: {value} is not from 0 to 16")));
    }
    Ok(())
}

// === impl Prediction ===

impl Prediction {
    fn new(probabilities: Vec<f32>) -> Self {
        let best = probabilities.iter().copied().enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other));
        let (class, probability) = best.unwrap_or_default();
        Self { class, probability, probabilities }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct HeldOut {
        correct: usize,
        labels: Vec<usize>,
        inputs: Vec<Vec<f32>>,
    }

    fn digits() -> Arc<Digits> {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/server/model/digits.onnx");
        Arc::new(Digits::load(Path::new(model)).unwrap())
    }

    fn held_out() -> HeldOut {
        serde_json::from_str(include_str!("model/heldout.json")).unwrap()
    }

    #[tokio::test]
    async fn the_model_is_right_as_often_as_its_training_reported() {
        let (digits, HeldOut { correct, labels, inputs }) = (digits(), held_out());
        assert_eq!((labels.len(), inputs.len(), correct), (400, 400, 393));
        let mut right = 0;
        for (inputs, labels) in inputs.chunks(MAX_INPUTS).zip(labels.chunks(MAX_INPUTS)) {
            let inputs = Inputs { inputs: inputs.to_vec() };
            let Json(Predictions { predictions }) = classify(State(digits.clone()), Json(inputs)).await.unwrap();
            assert_eq!(predictions.len(), labels.len());
            right += predictions.iter().zip(labels).filter(|(found, label)| found.class == **label).count();
            for Prediction { class, probability, probabilities } in predictions {
                assert_eq!((probabilities.len(), probabilities[class]), (10, probability));
                assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
        }
        assert_eq!(right, correct);
    }

    #[tokio::test]
    async fn embeddings_have_length_1_and_do_not_depend_on_their_neighbours() {
        let (digits, HeldOut { inputs, .. }) = (digits(), held_out());
        let many = Inputs { inputs: inputs[..MAX_INPUTS].to_vec() };
        let Json(Embeddings { embeddings: many }) = embeddings(State(digits.clone()), Json(many)).await.unwrap();
        assert_eq!(many.len(), MAX_INPUTS);
        for embedding in &many {
            assert_eq!(embedding.len(), 32);
            assert!((embedding.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        let one = Inputs { inputs: vec![inputs[7].clone()] };
        let Json(Embeddings { embeddings: one }) = embeddings(State(digits), Json(one)).await.unwrap();
        assert!(one[0].iter().zip(&many[7]).all(|(one, other)| (one - other).abs() < 1e-5));
    }

    #[test]
    fn inputs_that_are_no_images_are_refused_with_their_place() {
        let image = vec![1.0; PIXELS];
        let with = |pixel: f32| [&[pixel], &image[1..]].concat();
        for (inputs, what) in [
            (vec![], "inputs: there are 0"),
            (vec![image.clone(); 257], "inputs: there are 257"),
            (vec![image.clone(), vec![1.0; 63]], "inputs[1]: it has 63"),
            (vec![with(16.5)], "inputs[0][0]: 16.5"),
            (vec![with(-1.0)], "inputs[0][0]: -1"),
            (vec![with(f32::NAN)], "inputs[0][0]: NaN"),
            (vec![with(f32::INFINITY)], "inputs[0][0]: inf"),
        ] {
            let problem = Inputs { inputs }.check().unwrap_err();
            assert!(format!("{problem:?}").contains(what), "{what}: {problem:?}");
        }
        assert_eq!(Inputs { inputs: vec![with(16.0), image] }.check().unwrap().len(), 2 * PIXELS);
    }

    #[test]
    fn a_file_that_is_no_model_is_an_error() {
        for path in ["missing.onnx", "Cargo.toml"] {
            let error = Digits::load(Path::new(path)).err().unwrap();
            assert!(error.starts_with(&format!("app.model: `{path}`")), "{error}");
        }
    }
}
