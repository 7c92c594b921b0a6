//! The section `app` of the settings: the files, the database and the model of the example server.

use std::path::PathBuf;

use serde::Deserialize;

/// The section `app` of `config.yaml`. Paths are relative to the working directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The folder that `/files` serves.
    pub(crate) files_dir: PathBuf,
    /// The SQLite database of the notes. It is created if it does not exist.
    pub(crate) database: PathBuf,
    /// The ONNX model of `/v1/embeddings` and `/v1/classify`.
    pub(crate) model: PathBuf,
    /// The folder whose models `/v1/models` loads; by default that of `model`.
    models_dir: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            files_dir: "examples/server/files".into(),
            database: "notes.db".into(),
            model: "examples/server/model/digits.onnx".into(),
            models_dir: None,
        }
    }
}

impl Settings {
    pub(crate) fn models_dir(&self) -> PathBuf {
        let beside = || self.model.parent().map(PathBuf::from).unwrap_or_default();
        self.models_dir.clone().unwrap_or_else(beside)
    }

    /// Checks that the folder of the files can be listed.
    pub(crate) fn check_files(&self) -> Result<(), String> {
        let shown = self.files_dir.display();
        std::fs::read_dir(&self.files_dir)
            .map(drop)
            .map_err(|error| format!("app.files_dir: `{shown}` is no folder that can be read: {error}"))
    }
}
