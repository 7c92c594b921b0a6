//! Extractors for the path and the query, with problems as rejections.

use axum::extract::{FromRequestParts, Path as AxumPath, Query as AxumQuery};

use super::problem::Problem;

/// The parameter of the path.
#[derive(Debug, FromRequestParts)]
#[from_request(via(AxumPath), rejection(Problem))]
pub(crate) struct Path<T>(pub(crate) T);

/// The query string.
#[derive(Debug, FromRequestParts)]
#[from_request(via(AxumQuery), rejection(Problem))]
pub(crate) struct Query<T>(pub(crate) T);
