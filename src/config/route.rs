//! A route of the settings: a pattern of requests, and their pool.

use std::collections::HashMap;
use std::fmt;

use http::Method;

use super::error::ConfigError;
use super::nearest::{list, nearest};
use super::pool::ThreadPools;
use crate::workload::{PoolName, Workload};

/// The methods of RFC 9110 and of WebDAV, `PATCH`, `QUERY` and `PURGE`.
const METHODS: [&str; 20] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "PURGE",
];

/// A pattern of requests, and the pool that they run in. In YAML: an entry of `performance.routes`.
///
/// The pattern is a path in axum's syntax (`/v1/{id}`, `/files/{*path}`, `{{` for a brace), with a method before it if
/// the route is for one method only. The case of the method and the names of parameters make no difference:
/// `get /a/{x}` and `GET /a/{y}` are the same route.
///
/// ```
/// use tower_offload::Embedding;
/// use tower_offload::config::Route;
///
/// let route = Route::new("POST /v1/embeddings", Embedding)?;
/// assert_eq!(route.method().map(http::Method::as_str), Some("POST"));
/// assert_eq!(route.path(), "/v1/embeddings");
/// assert!(Route::new("/v1/:id", "db").is_err(), "that was the syntax of axum 0.7");
/// # Ok::<(), tower_offload::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    method: Option<Method>,
    path: String,
    pool: Workload,
}

/// The most overlaps that are reported in detail: finding the other route compares the new one with all before it.
const MOST_OVERLAPS: usize = 16;

/// A mistake of one route among others.
#[derive(Debug)]
pub(super) struct Fault {
    /// The route's index in the list.
    pub(super) index: usize,
    pub(super) message: String,
    /// The index of the other route, if two exclude each other.
    #[cfg(feature = "config")]
    pub(super) other: Option<usize>,
}

impl Route {
    /// Reads a pattern such as `POST /v1/embeddings` or `/files/{*path}`.
    ///
    /// # Errors
    ///
    /// If the pattern is not valid: the error says how to correct it. [`Config::validate`](crate::Config::validate)
    /// checks that the pool exists.
    pub fn new(pattern: &str, pool: impl PoolName) -> Result<Self, ConfigError> {
        Self::parse(pattern, pool.to_workload()).map_err(|message| {
            ConfigError::new(message).at_key(format!("performance.routes.{}", pattern.escape_debug()))
        })
    }

    pub(super) fn parse(pattern: &str, pool: Workload) -> Result<Self, String> {
        let pattern = pattern.trim();
        let (method, path) = match pattern.split_once(char::is_whitespace) {
            Some((method, path)) if !method.starts_with('/') => (Some(parse_method(method)?), path.trim_start()),
            _ if pattern.starts_with('/') => (None, pattern),
            _ if METHODS.contains(&pattern.to_ascii_uppercase().as_str()) => {
                return Err(format!("a path must follow the method; write `{pattern} /path`"));
            }
            _ => (None, pattern),
        };
        check_path(path)?;
        Ok(Self { method, path: path.to_owned(), pool })
    }

    /// The method, or `None` if the route is for all methods.
    #[must_use]
    pub const fn method(&self) -> Option<&Method> {
        self.method.as_ref()
    }

    /// The path, in axum's syntax.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name of the pool.
    #[must_use]
    pub const fn pool(&self) -> &Workload {
        &self.pool
    }
}

impl Fault {
    #[cfg_attr(not(feature = "config"), expect(unused_variables, reason = "only a file has lines to name"))]
    fn new(index: usize, message: String, other: Option<usize>) -> Self {
        Self {
            index,
            message,
            #[cfg(feature = "config")]
            other,
        }
    }
}

/// The pattern, in the form that [`Route::new`] reads.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.method {
            Some(method) => write!(f, "{method} {}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

/// The routes whose pool does not exist, and those that exclude an earlier route of the same method.
pub(super) fn faults(routes: &[Route], pools: &ThreadPools) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut overlaps = 0;
    let mut tables: HashMap<Option<&Method>, matchit::Router<usize>> = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        if pools.get(&route.pool).is_none() {
            let known: Vec<&str> = pools.iter().map(|(name, _)| name.as_str()).collect();
            let message = format!("there is no pool `{}`; the pools are {}", route.pool, list(&known));
            faults.push(Fault::new(index, message, None));
        }
        let table = tables.entry(route.method.as_ref()).or_default();
        if overlaps == MOST_OVERLAPS || table.insert(route.path.clone(), index).is_ok() {
            continue;
        }
        overlaps += 1;
        // The path was valid when the route was made, so it can only conflict with another route.
        let other = routes[..index].iter().position(|earlier| excludes(earlier, route));
        let message = match other {
            Some(other) if same_shape(&routes[other].path, &route.path) => {
                format!("this is the same route as `{}`; keep one of the two", routes[other])
            }
            Some(other) => format!("no path could tell this route from `{}`; keep one of the two", routes[other]),
            None => "this route overlaps with an earlier one; keep one of the two".to_owned(),
        };
        faults.push(Fault::new(index, message, other));
    }
    faults
}

fn excludes(earlier: &Route, later: &Route) -> bool {
    let mut pair = matchit::Router::new();
    earlier.method == later.method
        && pair.insert(earlier.path.clone(), ()).is_ok()
        && pair.insert(later.path.clone(), ()).is_err()
}

/// Whether two paths differ only in the names of their parameters.
fn same_shape(one: &str, other: &str) -> bool {
    shape(one) == shape(other)
}

fn shape(path: &str) -> String {
    let mut shape = String::with_capacity(path.len());
    let mut named = false;
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '{' | '}' if !named && characters.peek() == Some(&character) => {
                characters.next();
                shape.push(character);
                shape.push(character);
            }
            '{' => {
                named = true;
                shape.push('{');
                if characters.peek() == Some(&'*') {
                    shape.push('*');
                }
            }
            '}' => {
                named = false;
                shape.push('}');
            }
            _ if named => {}
            _ => shape.push(character),
        }
    }
    shape
}

fn parse_method(token: &str) -> Result<Method, String> {
    let upper = token.to_ascii_uppercase();
    if METHODS.contains(&upper.as_str())
        && let Ok(method) = Method::from_bytes(upper.as_bytes())
    {
        return Ok(method);
    }
    let remedy = match nearest(&upper, &METHODS) {
        Some(method) => format!("did you mean `{method}`?"),
        None => "write a method such as `GET` or `POST`, or the path alone for all methods".to_owned(),
    };
    Err(format!("`{}` is no known method; {remedy}", token.escape_debug()))
}

fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("a path begins with `/`; write `/{}`", path.escape_debug()));
    }
    if let Some(bad) = path.chars().find(|c| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#')) {
        return Err(format!("a path has no {bad:?}; a route is a method and a path, nothing more"));
    }
    for segment in path.split('/') {
        let (old, new) = match segment.split_at_checked(1) {
            Some((":", name)) => (segment, format!("{{{name}}}")),
            Some(("*", name)) => (segment, format!("{{*{name}}}")),
            _ => continue,
        };
        return Err(format!("`{old}` is the old syntax for a parameter; write `{new}`"));
    }
    let Err(error) = matchit::Router::new().insert(path, ()) else { return Ok(()) };
    Err(match error {
        matchit::InsertError::InvalidParamSegment => {
            "a segment has one parameter at most, and nothing after it; write `/{a}/{b}`".to_owned()
        }
        matchit::InsertError::InvalidCatchAll => {
            "a parameter that takes the rest of the path stands alone at its end; write `/files/{*path}`".to_owned()
        }
        _ => "its braces do not match or hold no name; write `/{id}`, and `{{` or `}}` for a brace itself".to_owned(),
    })
}
