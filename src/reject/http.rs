//! What every HTTP request says of itself, however its rejection is answered.

use http::{Request, Response};

use crate::terms::{Deadline, Priority, Terms};

/// How the request is called in the task log: its method and path, without the query.
pub(super) fn describe<B>(request: &Request<B>) -> String {
    format!("{} {}", request.method(), request.uri().path())
}

/// What the request's extensions ask of its pool.
pub(super) fn terms<B>(request: &Request<B>) -> Terms {
    let extensions = request.extensions();
    Terms {
        deadline: extensions.get::<Deadline>().copied(),
        priority: extensions.get::<Priority>().copied().unwrap_or_default(),
        caller: None,
    }
}

/// Whether an answer counts as an error: one of the service, or a status of 500 or above.
pub(super) fn failed<B, E>(result: &Result<Response<B>, E>) -> bool {
    result.as_ref().map_or(true, |response| response.status().is_server_error())
}
