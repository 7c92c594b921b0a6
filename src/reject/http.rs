//! What every HTTP request says of itself, however its rejection is answered.

use http::{Request, Response};

use crate::config::Trust;
use crate::headers::{self, BadHeader};
use crate::terms::{Deadline, Priority, Terms};

/// How the request is called in the task log: its method and path, without the query.
pub(super) fn describe<B>(request: &Request<B>) -> String {
    format!("{} {}", request.method(), request.uri().path())
}

/// What the request's extensions ask of its pool, and the headers that the pool believes. The deadline that follows is
/// put among the extensions, for the handler to see.
pub(super) fn terms<B>(request: &mut Request<B>, trust: &Trust) -> Result<Terms, BadHeader> {
    let extensions = request.extensions();
    let mut terms = Terms {
        deadline: extensions.get::<Deadline>().copied(),
        priority: extensions.get::<Priority>().copied().unwrap_or_default(),
        caller: None,
    };
    if *trust != Trust::default() {
        let stated = terms.deadline;
        headers::read(request.headers(), trust, &mut terms)?;
        if let Some(deadline) = terms.deadline.filter(|_| terms.deadline != stated) {
            request.extensions_mut().insert(deadline);
        }
    }
    Ok(terms)
}

/// Whether an answer counts as an error: one of the service, or a status of 500 or above.
pub(super) fn failed<B, E>(result: &Result<Response<B>, E>) -> bool {
    result.as_ref().map_or(true, |response| response.status().is_server_error())
}
