//! `GET /files/{*path}`: the files of a folder.

use std::io::ErrorKind;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use tower_http::services::ServeDir;

use super::problem::Problem;

pub(crate) async fn get(State(mut folder): State<ServeDir>, request: Request) -> Response {
    match folder.try_call(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) if is_absent(error.kind()) => Problem::not_found("there is nothing at this path").into_response(),
        Err(error) => Problem::internal("the file cannot be read", &error).into_response(),
    }
}

/// Whether the error means that the client may not have the file, or that it does not exist. A name that is too long for the
/// file system cannot exist.
fn is_absent(error: ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
    )
}
