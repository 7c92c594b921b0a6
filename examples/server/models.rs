//! `/v1/models`: the models of a folder, loaded, swapped and unloaded while the server serves.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use futures_util::future::{AbortHandle, Abortable};
use serde::{Deserialize, Serialize};
use tower_offload::batch::Batch;
use tower_offload::pool::TaskOptions;
use tower_offload::slots::{BuildError, SlotError, Slots, SlotsStats};
use tower_offload::{Embedding, Inference, Marker, Pools, TaskError};

use super::body::Json;
use super::model::MAX_INPUTS;
use super::problem::Problem;
use super::query::{Path as PathOf, Query};
use super::session::{self, Failed, ModelFile, Prediction, Session};

/// The model of requests that name no other.
pub(crate) const DEFAULT: &str = "digits";

/// The longest name of a model, and of a version.
const MAX_NAME: usize = 64;

/// The models that are loaded.
pub(crate) struct Models {
    pools: Pools,
    folder: PathBuf,
    names: Mutex<Names>,
}

/// What `DELETE` ends: what is loaded, and what is being loaded or swapped.
#[derive(Default)]
struct Names {
    loaded: BTreeMap<String, Loaded>,
    changing: BTreeMap<String, (u64, AbortHandle)>,
    /// How many changes have begun.
    changes: u64,
}

/// A model: a session for each permit of the two pools that run it.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) classifiers: Slots<Session>,
    pub(crate) embedders: Slots<Session>,
    pub(crate) classify: InputsBatch<Prediction>,
    pub(crate) embed: InputsBatch<Vec<f32>>,
    /// The version of the last load that took effect, and how many have.
    version: Option<String>,
    generation: u64,
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

/// A model that is being loaded or swapped. Dropping this ends that.
struct Change {
    models: Arc<Models>,
    name: String,
    number: u64,
}

/// `GET /v1/models`
pub(crate) async fn list(State(models): State<Arc<Models>>) -> Json<Listed> {
    let names = models.names();
    Json(Listed { models: names.loaded.iter().map(|(name, loaded)| (name.clone(), loaded.show())).collect() })
}

/// `POST /v1/models/{name}?version=…`: loads the model, or swaps it while it serves.
///
/// A task of its own does so: if the client leaves, the model is not left with sessions of two versions. `DELETE` ends the
/// task, and so does SIGTERM.
pub(crate) async fn load(
    State(models): State<Arc<Models>>,
    PathOf(name): PathOf<String>,
    Query(Version { version }): Query<Version>,
) -> Result<(StatusCode, Json<Shown>), Problem> {
    let file = models.file(&name, version.as_deref())?;
    let draining = models.pools.draining();
    let (abort, registration) = AbortHandle::new_pair();
    let change = {
        let mut names = models.names();
        if names.changing.contains_key(&name) {
            let detail = format!("the model `{name}` is being loaded already");
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        names.changes += 1;
        let number = names.changes;
        names.changing.insert(name.clone(), (number, abort.clone()));
        Change { models: models.clone(), name, number }
    };
    // Without the lock: a runtime that shuts down drops the task here.
    let task = tokio::spawn(Abortable::new(change.run(file, version), registration));
    tokio::select! {
        changed = task => match changed {
            Ok(Ok(changed)) => changed,
            Ok(Err(_aborted)) => Err(unloaded()),
            Err(error) => Err(Problem::internal("the model could not be loaded", &error)),
        },
        () = draining => {
            abort.abort();
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down"))
        }
    }
}

/// `DELETE /v1/models/{name}`: requests that run keep their sessions to their end. A load or a swap that runs is given up.
pub(crate) async fn unload(
    State(models): State<Arc<Models>>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    check_name("the model's name", &name)?;
    let mut names = models.names();
    let (loaded, changing) = (names.loaded.remove(&name), names.changing.remove(&name));
    drop(names);
    let found = loaded.is_some() || changing.is_some();
    if let Some((_, change)) = changing {
        change.abort();
    }
    if found { Ok(StatusCode::NO_CONTENT) } else { Err(not_loaded(&name)) }
}

fn not_loaded(name: &str) -> Problem {
    let name = shortened(name);
    Problem::not_found(format!("there is no model `{name}`; POST /v1/models/{name} loads it"))
}

fn unloaded() -> Problem {
    Problem::new(StatusCode::CONFLICT, "the model was unloaded meanwhile")
}

/// The first swap of a change has failed.
fn unchanged(error: SlotError) -> Problem {
    match &error {
        SlotError::Make(_) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("nothing has changed: {error}")),
        _ => Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// What a client has sent, in a length that can be shown.
fn shortened(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}

/// Names have no dots, slashes or other characters of paths, so that a client names files of the folder only.
fn check_name(what: &str, name: &str) -> Result<(), Problem> {
    let allowed = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"-_".contains(&letter);
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let wanted = "give 1 to 64 lower-case letters, digits, `-` and `_`";
    Err(Problem::bad_request(format!("{what}: {:?} cannot be used; {wanted}", shortened(name))))
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
        let file = ModelFile::new(path);
        let tried = file.session().and_then(|mut session| session.warm_up());
        tried.map_err(|error| format!("app.model: `{}`: {error}", path.display()))?;
        let digits =
            Loaded { generation: 1, ..Loaded::lazy(pools, DEFAULT, &file).map_err(|error| error.to_string())? };
        let names = Names { loaded: BTreeMap::from([(DEFAULT.to_owned(), digits)]), ..Names::default() };
        Ok(Self { pools: pools.clone(), folder: folder.to_owned(), names: Mutex::new(names) })
    }

    pub(crate) fn get(&self, name: &str) -> Result<Loaded, Problem> {
        self.names().loaded.get(name).cloned().ok_or_else(|| not_loaded(name))
    }

    /// The file of a version. Links are followed as long as they do not lead out of the folder.
    fn file(&self, name: &str, version: Option<&str>) -> Result<ModelFile, Problem> {
        check_name("the model's name", name)?;
        version.map_or(Ok(()), |version| check_name("version", version))?;
        let file = version.map_or_else(|| format!("{name}.onnx"), |version| format!("{name}@{version}.onnx"));
        let found = self.folder.join(&file).canonicalize().ok().filter(|path| path.is_file());
        let Some(path) = found else { return Err(Problem::not_found(format!("the folder has no file `{file}`"))) };
        if self.folder.canonicalize().is_ok_and(|folder| path.starts_with(folder)) {
            return Ok(ModelFile::new(&path));
        }
        let detail = format!("`{file}` is a link that leads out of the folder");
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a model on inputs.
type Run<T> = fn(&mut Session, Vec<Vec<f32>>) -> Result<Vec<T>, Failed>;

/// A batch has a permit of its pool, and so a session. Its items are the inputs of whole requests, and weigh as much as
/// they are. A request on whose inputs the model fails does so alone.
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
        .isolate()
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
    /// A model without any session yet.
    fn lazy(pools: &Pools, name: &str, file: &ModelFile) -> Result<Self, BuildError> {
        let (classify, embed) = (Slots::builder(pools, Inference), Slots::builder(pools, Embedding));
        let (one, other) = (file.clone(), file.clone());
        let classifiers = classify.name(name).make(move || one.session()).warm_up(Session::warm_up).build_lazy()?;
        let embedders = embed.name(name).make(move || other.session()).warm_up(Session::warm_up).build_lazy()?;
        let classify = in_batches(pools, Inference, &classifiers, session::classify);
        let embed = in_batches(pools, Embedding, &embedders, session::embed);
        Ok(Self { classifiers, embedders, classify, embed, version: None, generation: 0 })
    }

    fn show(&self) -> Shown {
        let (one, other) = (self.classifiers.stats(), self.embedders.stats());
        let sum = |of: fn(&SlotsStats) -> usize| of(&one) + of(&other);
        Shown {
            version: self.version.clone(),
            generation: self.generation,
            sessions: sum(|stats| stats.idle + stats.in_use),
            outdated: sum(|stats| stats.outdated),
        }
    }
}

// === impl Change ===

impl Change {
    /// Loads a version beside what serves, and lets it take effect. The threads of swaps do the work, so a load takes no
    /// worker from requests, whether the model is new or not.
    async fn run(self, file: ModelFile, version: Option<String>) -> Result<(StatusCode, Json<Shown>), Problem> {
        let before = self.models.names().loaded.get(&self.name).cloned();
        let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
        let mut loaded = match before {
            Some(loaded) => loaded,
            None => Loaded::lazy(&self.models.pools, &self.name, &file)
                .map_err(|error| Problem::internal("the model could not be loaded", &error))?,
        };
        let (one, other) = (file.clone(), file);
        loaded.classifiers.swap(move || one.session()).await.map_err(unchanged)?;
        // The file has been read, and a session of it has run. So this fails only if the server lacks memory or threads.
        let embedders = loaded.embedders.swap(move || other.session()).await;
        embedders.map_err(|error| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "/v1/embeddings has the version before; try again")
                .because(&error)
        })?;
        loaded.version = version;
        loaded.generation += 1;
        let shown = loaded.show();
        let mut names = self.models.names();
        // `DELETE` may have ended the change a moment ago.
        if !self.is_wanted(&names) {
            return Err(unloaded());
        }
        names.loaded.insert(self.name.clone(), loaded);
        Ok((status, Json(shown)))
    }

    fn is_wanted(&self, names: &Names) -> bool {
        names.changing.get(&self.name).is_some_and(|(number, _)| *number == self.number)
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut names = self.models.names();
        if self.is_wanted(&names) {
            names.changing.remove(&self.name);
        }
    }
}
