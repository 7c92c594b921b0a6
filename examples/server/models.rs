//! `/v1/models`: the models of a folder, loaded, swapped and unloaded while the server serves.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use tower_offload::batch::Batch;
use tower_offload::pool::TaskOptions;
use tower_offload::slots::{BuildError, SlotError, Slots, SlotsStats};
use tower_offload::{Embedding, Inference, Marker, Pools, TaskError};

use super::body::Json;
use super::model::MAX_INPUTS;
use super::problem::Problem;
use super::query::{Path as PathOf, Query};
use super::session::{self, Failed, Prediction, Session};

/// The model of requests that name no other.
pub(crate) const DEFAULT: &str = "digits";

/// The longest name of a model, and of a version.
const MAX_NAME: usize = 64;

/// The models that are loaded.
pub(crate) struct Models {
    pools: Pools,
    folder: PathBuf,
    loaded: Mutex<BTreeMap<String, Loaded>>,
    /// The names whose models are being loaded or swapped.
    changing: Mutex<BTreeSet<String>>,
}

/// A model: a session for each permit of the two pools that run it.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) classifiers: Slots<Session>,
    pub(crate) embedders: Slots<Session>,
    pub(crate) classify: InputsBatch<Prediction>,
    pub(crate) embed: InputsBatch<Vec<f32>>,
    /// The version of the last load that took effect.
    version: Option<String>,
}

/// The model, called with the inputs of one request.
pub(crate) type InputsBatch<T> = Batch<Vec<Vec<f32>>, Vec<T>, Infallible>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Version {
    version: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    models: BTreeMap<String, Shown>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    version: Option<String>,
    /// 1 at first, and one more for each swap.
    generation: u64,
    sessions: usize,
    /// Sessions of an earlier version that still serve.
    outdated: usize,
}

/// A name whose model is being changed.
struct Changing<'a> {
    models: &'a Models,
    name: String,
}

/// `GET /v1/models`
pub(crate) async fn list(State(models): State<Arc<Models>>) -> Json<Listed> {
    let loaded = lock(&models.loaded);
    Json(Listed { models: loaded.iter().map(|(name, loaded)| (name.clone(), loaded.show())).collect() })
}

/// `POST /v1/models/{name}?version=…`: loads the model, or swaps it while it serves.
pub(crate) async fn load(
    State(models): State<Arc<Models>>,
    PathOf(name): PathOf<String>,
    Query(Version { version }): Query<Version>,
) -> Result<(StatusCode, Json<Shown>), Problem> {
    let path = models.path(&name, version.as_deref())?;
    let _changing = Changing::begin(&models, &name)?;
    let make = move || Session::open(&path);
    let before = lock(&models.loaded).get(&name).cloned();
    let Some(mut loaded) = before else {
        let loaded = Loaded::open(&models.pools, &name, version, make).await.map_err(unusable)?;
        let shown = loaded.show();
        lock(&models.loaded).insert(name, loaded);
        return Ok((StatusCode::CREATED, Json(shown)));
    };
    loaded.classifiers.swap(make.clone()).await.map_err(unswapped)?;
    loaded.embedders.swap(make).await.map_err(unswapped)?;
    loaded.version = version;
    let shown = loaded.show();
    // It may have been unloaded meanwhile.
    if let Some(serving) = lock(&models.loaded).get_mut(&name) {
        serving.version = loaded.version;
    }
    Ok((StatusCode::OK, Json(shown)))
}

/// `DELETE /v1/models/{name}`: requests that run keep their sessions to their end.
pub(crate) async fn unload(
    State(models): State<Arc<Models>>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    check_name("the model's name", &name)?;
    let unloaded = lock(&models.loaded).remove(&name);
    unloaded.map(|_sessions| StatusCode::NO_CONTENT).ok_or_else(|| not_loaded(&name))
}

fn not_loaded(name: &str) -> Problem {
    Problem::not_found(format!("there is no model `{name}`; POST /v1/models/{name} loads it"))
}

/// The file exists, but no session can be made of it.
fn unusable(error: BuildError) -> Problem {
    match &error {
        BuildError::First(SlotError::Task(_)) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        _ => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{error}")),
    }
}

fn unswapped(error: SlotError) -> Problem {
    match &error {
        SlotError::Make(_) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("nothing has changed: {error}")),
        _ => Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// Names have no dots, slashes or other characters of paths, so that a client names files of the folder only.
fn check_name(what: &str, name: &str) -> Result<(), Problem> {
    let allowed = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"-_".contains(&letter);
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let wanted = "give 1 to 64 lower-case letters, digits, `-` and `_`";
    Err(Problem::bad_request(format!("{what}: {name:?} cannot be used; {wanted}")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Models ===

impl Models {
    /// The deadline, the priority and the caller of a request whose handler is not in the pool.
    pub(crate) fn options_of(&self, pool: impl Marker, request: &Parts) -> Result<TaskOptions, TaskError> {
        if self.pools.is_disabled() {
            return Ok(TaskOptions::new());
        }
        Ok(self.pools.get(pool)?.options_of(&request.headers, &request.extensions)?)
    }

    /// The models of a folder. The one of `path` is loaded as the default; it is tried once.
    pub(crate) fn open(pools: &Pools, path: &Path, folder: &Path) -> Result<Self, String> {
        let tried = Session::open(path).and_then(|mut session| session.warm_up());
        tried.map_err(|error| format!("app.model: `{}`: {error}", path.display()))?;
        let path = path.to_owned();
        let digits = Loaded::lazy(pools, DEFAULT, move || Session::open(&path)).map_err(|error| error.to_string())?;
        Ok(Self {
            pools: pools.clone(),
            folder: folder.to_owned(),
            loaded: Mutex::new(BTreeMap::from([(DEFAULT.to_owned(), digits)])),
            changing: Mutex::default(),
        })
    }

    pub(crate) fn get(&self, name: &str) -> Result<Loaded, Problem> {
        lock(&self.loaded).get(name).cloned().ok_or_else(|| not_loaded(name))
    }

    fn path(&self, name: &str, version: Option<&str>) -> Result<PathBuf, Problem> {
        check_name("the model's name", name)?;
        version.map_or(Ok(()), |version| check_name("version", version))?;
        let file = version.map_or_else(|| format!("{name}.onnx"), |version| format!("{name}@{version}.onnx"));
        let path = self.folder.join(&file);
        if path.is_file() { Ok(path) } else { Err(Problem::not_found(format!("the folder has no file `{file}`"))) }
    }
}

/// Runs a model on inputs.
type Run<T> = fn(&mut Session, Vec<Vec<f32>>) -> Result<Vec<T>, Failed>;

/// A batch has a permit of its pool, and so a session. Its items are the inputs of whole requests, and weigh as much as
/// they are.
fn in_batches<T: Send + 'static>(
    pools: &Pools,
    pool: impl Marker,
    sessions: &Slots<Session>,
    run: Run<T>,
) -> InputsBatch<T> {
    let sessions = sessions.clone();
    let batch = Batch::builder(pools, pool)
        .max_items(MAX_INPUTS)
        .max_weight(MAX_INPUTS as u64, |inputs: &Vec<Vec<f32>>| inputs.len() as u64)
        .try_run(move |requests: Vec<Vec<Vec<f32>>>| -> Result<Vec<Vec<T>>, Failed> {
            let lengths: Vec<_> = requests.iter().map(Vec::len).collect();
            let inputs = requests.into_iter().flatten().collect();
            let mut results = sessions.here(|session| run(session, inputs))??.into_iter();
            Ok(lengths.into_iter().map(|length| results.by_ref().take(length).collect()).collect())
        });
    batch.expect("the pools are built in, and the limits are not zero")
}

// === impl Loaded ===

impl Loaded {
    fn lazy<F>(pools: &Pools, name: &str, make: F) -> Result<Self, BuildError>
    where
        F: Fn() -> Result<Session, String> + Clone + Send + Sync + 'static,
    {
        let (classify, embed) = (Slots::builder(pools, Inference), Slots::builder(pools, Embedding));
        let classifiers = classify.name(name).make(make.clone()).warm_up(Session::warm_up).build_lazy()?;
        let embedders = embed.name(name).make(make).warm_up(Session::warm_up).build_lazy()?;
        let classify = in_batches(pools, Inference, &classifiers, session::classify);
        let embed = in_batches(pools, Embedding, &embedders, session::embed);
        Ok(Self { classifiers, embedders, classify, embed, version: None })
    }

    /// Makes one session at once.
    async fn open<F>(pools: &Pools, name: &str, version: Option<String>, make: F) -> Result<Self, BuildError>
    where
        F: Fn() -> Result<Session, String> + Clone + Send + Sync + 'static,
    {
        let loaded = Self::lazy(pools, name, make)?;
        loaded.classifiers.run(|_session| ()).await.map_err(BuildError::First)?;
        Ok(Self { version, ..loaded })
    }

    fn show(&self) -> Shown {
        let (one, other) = (self.classifiers.stats(), self.embedders.stats());
        let sum = |of: fn(&SlotsStats) -> usize| of(&one) + of(&other);
        Shown {
            version: self.version.clone(),
            generation: one.generation,
            sessions: sum(|stats| stats.idle + stats.in_use),
            outdated: sum(|stats| stats.outdated),
        }
    }
}

// === impl Changing ===

impl<'a> Changing<'a> {
    fn begin(models: &'a Models, name: &str) -> Result<Self, Problem> {
        if !lock(&models.changing).insert(name.to_owned()) {
            let detail = format!("the model `{name}` is being loaded already");
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        Ok(Self { models, name: name.to_owned() })
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        lock(&self.models.changing).remove(&self.name);
    }
}
