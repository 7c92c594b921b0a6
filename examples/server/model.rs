//! `POST /v1/embeddings`, `POST /v1/classify` and its stream: a small network that reads handwritten digits, run by `rten`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_stream::Stream;
use tower_offload::batch::BatchError;
use tower_offload::slots::{SlotError, Slots};
use tower_offload::{Embedding, Inference, Marker, TaskError};

use super::body::Json;
use super::models::{DEFAULT, InputsBatch, Models};
use super::problem::Problem;
use super::query::Query;
use super::session::{self, Failed, PIXELS, Prediction, Session};

/// The most inputs of one request, and of one batch.
pub(crate) const MAX_INPUTS: usize = 256;

/// The brightest pixel.
const BRIGHTEST: f32 = 16.0;

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

/// Why a request has no prediction: something is wrong with it or with the model, or the pool rejected it.
#[derive(Debug)]
pub(crate) enum Unanswered {
    Problem(Problem),
    Task(TaskError),
}

/// Which model a request is for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    #[serde(default = "default_model")]
    model: String,
}

fn default_model() -> String {
    DEFAULT.to_owned()
}

/// Vectors of length 1, one for each input.
pub(crate) async fn embeddings(
    State(models): State<Arc<Models>>,
    Query(Which { model }): Query<Which>,
    request: Parts,
    Json(inputs): Json<Inputs>,
) -> Result<Json<Embeddings>, Unanswered> {
    let (inputs, embed) = (inputs.check()?, models.get(&model)?.embed);
    let embeddings = in_batch(&models, Embedding, &embed, &request, inputs).await?;
    Ok(Json(Embeddings { embeddings }))
}

/// The most probable digit of each input, with the probabilities of all ten.
pub(crate) async fn classify(
    State(models): State<Arc<Models>>,
    Query(Which { model }): Query<Which>,
    request: Parts,
    Json(inputs): Json<Inputs>,
) -> Result<Json<Predictions>, Unanswered> {
    let (inputs, classify) = (inputs.check()?, models.get(&model)?.classify);
    let predictions = in_batch(&models, Inference, &classify, &request, inputs).await?;
    Ok(Json(Predictions { predictions }))
}

/// The inputs of a request are one item of a batch, which the model runs together with those of other requests.
async fn in_batch<T: Send + 'static>(
    models: &Models,
    pool: impl Marker,
    batch: &InputsBatch<T>,
    request: &Parts,
    inputs: Vec<Vec<f32>>,
) -> Result<Vec<T>, Unanswered> {
    // The handler is not in the pool, so no layer has read the deadline and the priority of the request.
    let options = models.options_of(pool, request)?;
    Ok(batch.call_with(options, inputs).await?)
}

/// Uses the session that belongs to the permit of this request.
fn with<T>(sessions: &Slots<Session>, call: impl FnOnce(&mut Session) -> Result<T, Failed>) -> Result<T, Problem> {
    let answer = sessions.here(call).map_err(|error| unavailable(&error))?;
    answer.map_err(|error| Problem::internal("the model could not be run", &error))
}

fn unavailable(error: &SlotError) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the model cannot be loaded; try again").because(error)
}

/// Server-sent events, one for each line of the body: the prediction for its input, or what is wrong with the line. The
/// last event counts the lines, so that a client can tell that none is missing.
///
/// The worker that polls the body of the response runs the model, when the client has taken the events before.
pub(crate) async fn classify_lines(
    State(models): State<Arc<Models>>,
    Query(Which { model }): Query<Which>,
    body: Bytes,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let sessions = models.get(&model)?.classifiers;
    let lines = Lines { rest: body, number: 0 };
    let count = Lines { rest: lines.rest.clone(), ..lines }.count();
    if count == 0 {
        return Err(Problem::bad_request("the body has no line; give lines such as {\"input\": [64 numbers]}"));
    }
    let events = lines.map(move |(number, line)| match classify_line(&sessions, &line) {
        Ok(prediction) => event("prediction", &prediction).id(number.to_string()),
        Err(problem) => event("problem", &problem.document()).id(number.to_string()),
    });
    let events = events.chain(std::iter::once_with(move || event("end", &json!({ "lines": count }))));
    Ok(Sse::new(tokio_stream::iter(events.map(Ok))))
}

fn classify_line(sessions: &Slots<Session>, line: &[u8]) -> Result<Prediction, Problem> {
    let Line { input } = serde_json::from_slice(line).map_err(|error| Problem::bad_request(error.to_string()))?;
    check(&input, || "input".to_owned())?;
    let mut predictions = with(sessions, |session| session::classify(session, vec![input]))?;
    predictions.pop().ok_or_else(|| Problem::internal("the model could not be run", &"it gave no answer"))
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).json_data(data).expect("numbers and texts can be written as JSON")
}

// === impl Unanswered ===

impl From<Problem> for Unanswered {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<TaskError> for Unanswered {
    fn from(error: TaskError) -> Self {
        Self::Task(error)
    }
}

impl From<BatchError<Infallible>> for Unanswered {
    fn from(error: BatchError<Infallible>) -> Self {
        let failed = |error: &dyn std::fmt::Display| Problem::internal("the model could not be run", error);
        match error {
            BatchError::Task(error) => Self::Task(error),
            BatchError::Service(error) => match error.downcast_ref::<SlotError>() {
                Some(error) => Self::Problem(unavailable(error)),
                None => Self::Problem(failed(&error)),
            },
            error => Self::Problem(failed(&error)),
        }
    }
}

impl IntoResponse for Unanswered {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::Task(error) => error.into_response(),
        }
    }
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

// === impl Inputs ===

impl Inputs {
    /// The inputs, if each is an image.
    fn check(self) -> Result<Vec<Vec<f32>>, Problem> {
        let count = self.inputs.len();
        if !(1..=MAX_INPUTS).contains(&count) {
            return Err(Problem::bad_request(format!("inputs: there are {count}; give 1 to {MAX_INPUTS}")));
        }
        for (index, input) in self.inputs.iter().enumerate() {
            check(input, || format!("inputs[{index}]"))?;
        }
        Ok(self.inputs)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tower_offload::Pools;

    use super::*;

    #[derive(Deserialize)]
    struct HeldOut {
        correct: usize,
        labels: Vec<usize>,
        inputs: Vec<Vec<f32>>,
    }

    fn digits() -> State<Arc<Models>> {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/server/model"));
        State(Arc::new(Models::open(&Pools::disabled(), &folder.join("digits.onnx"), folder).unwrap()))
    }

    fn which() -> Query<Which> {
        Query(Which { model: default_model() })
    }

    fn parts() -> Parts {
        axum::http::Request::new(()).into_parts().0
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
            let Json(Predictions { predictions }) =
                classify(digits.clone(), which(), parts(), Json(inputs)).await.unwrap();
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
        let Json(Embeddings { embeddings: many }) =
            embeddings(digits.clone(), which(), parts(), Json(many)).await.unwrap();
        assert_eq!(many.len(), MAX_INPUTS);
        for embedding in &many {
            assert_eq!(embedding.len(), 32);
            assert!((embedding.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        let one = Inputs { inputs: vec![inputs[7].clone()] };
        let Json(Embeddings { embeddings: one }) = embeddings(digits, which(), parts(), Json(one)).await.unwrap();
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
        assert_eq!(Inputs { inputs: vec![with(16.0), image] }.check().unwrap().len(), 2);
    }

    #[test]
    fn a_file_that_is_no_model_is_an_error() {
        for path in ["missing.onnx", "Cargo.toml"] {
            let error = Models::open(&Pools::disabled(), Path::new(path), Path::new(".")).err().unwrap();
            assert!(error.starts_with(&format!("app.model: `{path}`")), "{error}");
        }
    }
}
